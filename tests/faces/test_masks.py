"""Masks from files: what counts as white, which way up, and one sentence for each mistake."""

import numpy as np
import pytest
from PIL import Image

from flashface_jax.faces.files import read_mask, read_photo

WHITE = np.zeros((12, 20), bool)
WHITE[2:9, 5:17] = True


def written(tmp_path, image, **options):
    path = tmp_path / "mask.png"
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_white_is_repainted_in_every_mode(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(WHITE * np.uint16(65535))
    else:
        image = Image.fromarray(WHITE * np.uint8(255)).convert(mode)
    assert image.mode == mode
    mask = read_mask(written(tmp_path, image), WHITE.shape)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask[..., 0], WHITE)


def test_greys_from_one_half_on_are_white(tmp_path):
    levels = np.arange(256, dtype=np.uint8)[None]
    mask = read_mask(written(tmp_path, Image.fromarray(levels)), (1, 256))
    np.testing.assert_array_equal(mask[0, :, 0], levels[0] >= 128)


def test_a_transparent_layer_is_black_on_a_mask_and_white_on_a_photo(tmp_path):
    layer = np.full((*WHITE.shape, 4), 255, np.uint8)
    layer[..., 3] = 255 * WHITE
    path = written(tmp_path, Image.fromarray(layer))
    np.testing.assert_array_equal(read_mask(path, WHITE.shape)[..., 0], WHITE)
    assert (read_photo(path) == 255).all()


def test_a_mask_is_turned_upright_as_its_photo_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the upright picture is this one turned clockwise
    path = written(tmp_path, Image.fromarray(WHITE * np.uint8(255)), exif=exif)
    np.testing.assert_array_equal(read_mask(path, (20, 12))[..., 0], np.rot90(WHITE, -1))
    assert read_photo(path).shape == (20, 12, 3)


def test_a_wholly_white_mask_is_one(tmp_path):
    assert read_mask(written(tmp_path, Image.new("L", (20, 12), "white")), (12, 20)).all()


def test_a_mask_that_masks_nothing_is_refused(tmp_path):
    path = written(tmp_path, Image.new("L", (20, 12), 127))
    with pytest.raises(ValueError, match=r"mask\.png masks nothing: paint white"):
        read_mask(path, (12, 20))


def test_a_mask_of_another_size_is_refused(tmp_path):
    path = written(tmp_path, Image.new("L", (20, 12), "white"))
    with pytest.raises(ValueError, match=r"mask\.png is 20x12 pixels but the photo is 12x20: draw"):
        read_mask(path, (20, 12))


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png does not exist"):
        read_mask(tmp_path / "none.png", (12, 20))
    (tmp_path / "text.png").write_text("white")
    with pytest.raises(ValueError, match=r"text\.png is no picture that can be read"):
        read_mask(tmp_path / "text.png", (12, 20))
    path = written(tmp_path, Image.fromarray(WHITE))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"mask\.png is no picture that can be read"):
        read_mask(path, WHITE.shape)
    with pytest.raises(ValueError, match="is a directory: name the pictures in it"):
        read_mask(tmp_path, (12, 20))
