"""PNGs that say how they were made: written whole or not at all, read back as they were."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flashface_jax.common.contact_sheet import is_sheet, write_sheet
from flashface_jax.sampling.records import KEY, SOFTWARE, Record, Weights, read_record, write_png
from tests.sampling.world import pixels, save

RECORD = Record(
    software=SOFTWARE,
    job={"prompt": "ein Mädchen, 笑顔", "people": [["a.png"]], "settings": {"steps": 3}},
    sampling={"steps": 3, "reference_strength": [[0.0, 0.5], [1.0, 1.0]]},
    size=(64, 48),
    references=("ab", "cd"),
    painted=None,
    weights=Weights("weights", "ef"),
    precision="bfloat16",
    detector="a detector",
)
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)


def test_a_record_comes_back_and_changes_no_pixel(tmp_path):
    write_png(tmp_path / "a.png", IMAGE, RECORD)
    assert read_record(tmp_path / "a.png") == RECORD
    assert np.array_equal(pixels(tmp_path / "a.png"), IMAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_record_is_json_that_other_programs_can_read(tmp_path):
    write_png(tmp_path / "a.png", IMAGE, RECORD)
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.text[KEY])["job"]["prompt"] == RECORD.job["prompt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, error):
    write_png(tmp_path / "a.png", IMAGE, RECORD)
    before = (tmp_path / "a.png").read_bytes()

    def fail(image, path, **_):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    for name in ("a.png", "b.png"):
        with pytest.raises(type(error)):
            write_png(tmp_path / name, IMAGE, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_an_image_saved_by_another_program_says_nothing(tmp_path):
    write_png(tmp_path / "a.png", IMAGE, RECORD)
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "b.png")
        image.convert("RGB").save(tmp_path / "c.jpg")
    for name in ("b.png", "c.jpg"):
        with pytest.raises(ValueError, match=rf"{name} does not say how it was made: only PNGs"):
            read_record(tmp_path / name)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Record)])
def test_every_field_is_needed_and_checked(tmp_path, field):
    whole = dataclasses.asdict(RECORD)
    lacking = {name: value for name, value in whole.items() if name != field}
    for record, said in (
        (lacking, f"lacks '{field}'"),
        ({**whole, field: 1.5}, f"{field} is 1.5; it must be"),
    ):
        info = PngInfo()
        info.add_itxt(KEY, json.dumps(record), zip=True)
        Image.fromarray(IMAGE).save(tmp_path / "a.png", pnginfo=info)
        with pytest.raises(ValueError, match=r"a\.png says how it was made, but not so") as error:
            read_record(tmp_path / "a.png")
        assert said in str(error.value)


def test_damage_anywhere_gives_the_record_or_a_sentence(tmp_path):
    write_png(tmp_path / "a.png", IMAGE, RECORD)
    good = (tmp_path / "a.png").read_bytes()
    rng, refused = np.random.default_rng(1), 0
    damaged = [good[: int(rng.integers(len(good)))] for _ in range(40)]
    for place in rng.integers(8, len(good), 80):
        damaged.append(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
    for content in damaged:
        (tmp_path / "b.png").write_bytes(content)
        try:
            read_record(tmp_path / "b.png")
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path}/b.png ")
    assert refused > 60


def test_a_sheet_shows_small_pictures_of_any_size_and_knows_itself(tmp_path):
    paths = [
        save(tmp_path / f"{i}.png", np.full((h, w, 3), 25 * i, np.uint8))
        for i, (h, w) in enumerate([(300, 600), (600, 300), (20, 20)] * 3)
    ]
    write_sheet(tmp_path / "sheet.png", paths)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 260 - 4, 2 * 260 - 4)
    assert is_sheet(tmp_path / "sheet.png") and not is_sheet(paths[0])
    assert not is_sheet(tmp_path / "nowhere.png")
    assert len(list(tmp_path.iterdir())) == len(paths) + 1
