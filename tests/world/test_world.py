"""The synthetic world: reproducible, consistent, and its words never say who it is."""

import re
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from PIL import Image

from flashface_jax.data.draw import main
from flashface_jax.world import (
    VOCABULARY,
    Framing,
    PhotoAttributes,
    SyntheticWorld,
    caption,
    render,
)
from flashface_jax.world.identity import HAIR_STYLES

WORLD = SyntheticWorld(seed=11, num_identities=12, photos_per_identity=12, image_size=64)
FACING = PhotoAttributes(face_size=0.6)
# Where left eye, right eye, nose tip and mouth corners go in a 32-pixel aligned crop.
ALIGNED = np.array([[10, 12], [22, 12], [16, 18], [11, 24], [21, 24]], np.float32)


@pytest.fixture(scope="module")
def photos():
    return [[WORLD.photo(i, j) for j in range(12)] for i in range(12)]


def aligned_crop(photo):
    transform, _ = cv2.estimateAffinePartial2D(photo.landmarks, ALIGNED, method=cv2.LMEDS)
    return cv2.warpAffine(photo.image, transform, (32, 32)).astype(np.float32) / 255


def difference(a, b):
    """Absolute difference a pixel, 0..255, averaged over colours."""
    return np.abs(a.astype(np.float32) - b.astype(np.float32)).mean(axis=-1)


def test_a_photo_is_the_same_in_any_order_and_in_a_larger_world(photos):
    larger = SyntheticWorld(11, num_identities=40, photos_per_identity=50, image_size=64)
    for i, j in [(7, 3), (0, 0), (11, 11), (0, 5)]:
        first, again = photos[i][j], larger.photo(i, j)
        for field in fields(first):
            np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))


def test_seed_identity_and_photo_each_matter():
    base = WORLD.photo(1, 1).image
    others = {
        "photo": WORLD.photo(1, 2),
        "identity": WORLD.photo(2, 1),
        "seed": replace(WORLD, seed=12).photo(1, 1),
    }
    for name, other in others.items():
        changed = difference(base, other.image).mean()
        assert changed > 5, f"another {name} changes pixels by {changed:.2f} of 255 on average"


@pytest.mark.parametrize("i", range(10))
def test_the_same_picture_at_every_size(i):
    small, large = WORLD.photo(i, i), replace(WORLD, image_size=256).photo(i, i)
    shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
    mean = difference(small.image, shrunk).mean()
    assert mean < 3.5, f"64 pixels against 256 shrunk: {mean:.2f} of 255 apart"
    np.testing.assert_allclose(large.face_box, 4 * small.face_box, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(large.landmarks, 4 * small.landmarks, rtol=1e-4, atol=1e-2)
    assert (large.caption, large.source_id) == (small.caption, small.source_id)


def test_boxes_and_landmarks_are_consistent(photos):
    for photo in (photo for row in photos for photo in row):
        x1, y1, x2, y2 = photo.face_box
        assert 0 < x1 < x2 < 64 and 0 < y1 < y2 < 64, (photo.source_id, photo.face_box)
        assert 0.3 < (y2 - y1) / 64 < 0.8, (photo.source_id, photo.face_box)
        inside = (photo.landmarks > (x1, y1)) & (photo.landmarks < (x2, y2))
        assert inside.all(), (photo.source_id, photo.face_box, photo.landmarks)
        left_eye, right_eye, nose, left_mouth, right_mouth = photo.landmarks
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0], photo.source_id
        # Along the face's own vertical, since the head may be tilted.
        across = right_eye - left_eye
        down = np.array([-across[1], across[0]]) / np.hypot(*across)
        eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
        assert eyes @ down < nose @ down < mouth @ down, (photo.source_id, photo.landmarks)


@pytest.mark.parametrize(
    "pose", [{}, {"yaw": 30.0}, {"yaw": -30.0, "pitch": 10.0}, {"roll": 20.0, "pitch": -15.0}]
)
def test_landmarks_lie_where_the_features_are_drawn(pose):
    identity = replace(WORLD.identity(0), hair_style="buzz", marks=(), facial_hair="none")
    attributes = replace(FACING, **pose)
    drawn = render(identity, attributes, 256)

    def middle_of_change(**traits):
        changed = render(replace(identity, **traits), attributes, 256)
        return np.argwhere(difference(drawn.image, changed.image) > 20)[:, ::-1]

    eyes = middle_of_change(eye_color=(255.0, 0.0, 255.0))
    to_left, to_right = (np.hypot(*(eyes - drawn.landmarks[k]).T) for k in (0, 1))
    for k, place in ((0, eyes[to_left < to_right]), (1, eyes[to_right < to_left])):
        gap = np.hypot(*(place.mean(axis=0) - drawn.landmarks[k]))
        assert gap < 5, f"landmark {k} is {gap:.1f} of 256 pixels from the iris"
    lips = middle_of_change(lip_redness=1.0, skin=identity.skin, lip_fullness=0.2)
    gap = np.hypot(*(lips.mean(axis=0) - drawn.landmarks[3:].mean(axis=0)))
    assert gap < 9, f"mouth corners' middle is {gap:.1f} of 256 pixels from the lips"


def test_identity_alone_changes_the_inside_of_the_face():
    for i in range(6):
        one, other = (render(WORLD.identity(k), FACING, 64) for k in (i, i + 1))
        x1, y1, x2, y2 = np.rint(one.face_box).astype(int)
        inside = difference(one.image, other.image)[y1:y2, x1:x2].mean()
        assert inside > 12, f"identities {i} and {i + 1}: {inside:.1f} of 255 apart in the face"


@pytest.mark.parametrize(
    "change",
    [
        {"age": "child"},
        {"age": "middle-aged"},
        {"age": "old"},
        {"expression": "smiling"},
        {"expression": "laughing"},
        {"expression": "sad"},
        {"expression": "surprised"},
        {"expression": "angry"},
        {"hair_dye": "blue"},
        {"eyewear": "glasses"},
        {"eyewear": "sunglasses"},
        {"headwear": "hat"},
        {"headwear": "cap"},
        {"headwear": "beanie"},
        {"headwear": "headphones"},
        {"headwear": "hat", "headwear_color": "red"},
        {"extra": "earrings"},
        {"extra": "scarf"},
        {"extra": "mask"},
        {"clothing": "dress"},
        {"clothing": "t-shirt"},
        {"clothing": "sweater"},
        {"clothing": "jacket"},
        {"clothing": "hoodie"},
        {"clothing_color": "red"},
        {"background": "beach"},
        {"background": "forest"},
        {"background": "city"},
        {"background": "night"},
        {"background": "room"},
        {"background": "mountains"},
        {"background": "stripes"},
        {"background": "gradient"},
        {"background_color": "pink"},
        {"light_from": "left"},
        {"light_tint": "warm"},
        {"light_tint": "cool"},
        {"light_strength": 1.0},
        {"yaw": 25.0},
        {"pitch": -15.0},
        {"roll": 15.0},
        {"face_size": 0.45},
        {"center_x": 0.4},
        {"center_y": 0.42},
    ],
    ids=str,
)
def test_each_attribute_changes_the_picture(change):
    identity = replace(WORLD.identity(3), hair_style="swept")
    plain, changed = (render(identity, a, 64).image for a in (FACING, replace(FACING, **change)))
    pixels = int((difference(plain, changed) > 12).sum())
    assert pixels >= 12, f"{change} changes only {pixels} of 4096 pixels"


def test_pixels_tell_identities_apart_in_aligned_crops_but_not_in_whole_photos(photos):
    def nearest_centroid_accuracy(x):
        centroids = x[:, :6].mean(axis=1)
        distance = ((x[:, 6:, None] - centroids) ** 2).mean(axis=-1)
        return (distance.argmin(axis=-1) == np.arange(12)[:, None]).mean()

    def within_over_between(x):
        x = x.reshape(144, -1)
        distance = np.stack([np.abs(x - row).mean(axis=-1) for row in x])
        same = np.kron(np.eye(12), np.ones((12, 12))) > 0
        return distance[same & ~np.eye(144, dtype=bool)].mean() / distance[~same].mean()

    faces = np.array([[aligned_crop(p)[6:30, 4:28].ravel() for p in row] for row in photos])
    whole = np.array([[p.image.ravel() / 255 for p in row] for row in photos], np.float32)
    accuracy, ratio = nearest_centroid_accuracy(faces), within_over_between(faces)
    assert accuracy > 0.55, f"nearest centroid finds {accuracy:.0%} of 12 identities, chance is 8%"
    assert ratio < 0.75, f"faces of one person are {ratio:.2f} times as far apart as of two"
    # Copying a reference's pixels must gain almost nothing over copying a stranger's.
    ratio = within_over_between(whole)
    assert ratio > 0.85, f"photos of one person are {ratio:.2f} times as far apart as of two"


def test_telling_traits_are_spread_over_the_first_identities():
    world = SyntheticWorld(0, 40, 1, 64)
    people = [world.identity(i) for i in range(40)]
    styles = [person.hair_style for person in people]
    assert set(styles) == set(HAIR_STYLES)
    assert max(map(styles.count, HAIR_STYLES)) <= 8, "a hair style is worn by more than 8 of 40"
    brightness = sorted(sum(person.skin) / 3 for person in people)
    assert brightness[4] < 90 and brightness[-5] > 195, f"skin brightness {brightness}"


def test_captions_say_what_varies_and_never_who_it_is(photos):
    said = [photo.caption for row in photos for photo in row]
    for i, row in enumerate(photos):
        assert [p.caption for p in row] == [caption(WORLD.attributes(i, j)) for j in range(12)]
    assert len(set(said)) == len(said), "two photos have the same caption"
    who = [
        "eyes",
        "nose",
        "brows",
        "chin",
        "freckles",
        "mole",
        "scar",
        "tattoo",
        "skin",
        "beard",
        "blond",
        "bun",
        "afro",
        "mohawk",
    ]
    assert not set(who) & set(VOCABULARY)
    dyes = [WORLD.attributes(i, j).hair_dye for i in range(12) for j in range(12)]
    for dye, text in zip(dyes, said, strict=True):
        assert ("dyed" in text.split()) == (dye != "none"), text


def test_captions_keep_to_a_small_vocabulary():
    assert len(VOCABULARY) <= 120, f"{len(VOCABULARY)} words"
    world = SyntheticWorld(5, 40, 20, 64)
    captions = [caption(world.attributes(i, j)) for i in range(40) for j in range(20)]
    words = [re.findall(r"[^\s,]+", text) for text in captions]
    assert {word for text in words for word in text} <= set(VOCABULARY)
    lengths = [len(text) for text in words]
    assert max(lengths) <= 40, f"longest caption has {max(lengths)} words"
    assert min(lengths) <= 10, f"shortest caption has {min(lengths)} words"


def test_the_plain_wording_says_everything_in_order():
    attributes = PhotoAttributes(
        age="old",
        expression="smiling",
        hair_dye="blue",
        eyewear="sunglasses",
        headwear="hat",
        headwear_color="orange",
        clothing_color="red",
        background="beach",
        light_from="right",
        light_tint="warm",
        yaw=-20.0,
    )
    assert caption(attributes) == (
        "a photo of an old person with dyed blue hair, smiling, wearing sunglasses, an orange hat"
        " and a red shirt, looking left, on a beach, warm light from the right"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WORLD.photo(12, 0), "identity is 12 but must lie between 0 and 11."),
        (lambda: WORLD.identity(-1), "identity is -1 but must lie between 0 and 11."),
        (lambda: WORLD.attributes(0, 99), "photo is 99 but must lie between 0 and 11."),
    ],
)
def test_an_index_outside_the_world_is_refused(call, message):
    with pytest.raises(IndexError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Framing((0.5, 0.9)), "face_sizes is (0.5, 0.9) but must rise, between 0.3 and"),
        (lambda: Framing((0.6, 0.5)), "face_sizes is (0.6, 0.5) but must rise"),
        (lambda: Framing(turn=1.5), "turn is 1.5 but must lie between 0 and 1"),
        (lambda: SyntheticWorld(0, 1, 1, 63), "image_size is 63 but must lie between 64 and 768"),
        (lambda: SyntheticWorld(0, 0, 1, 64), "num_identities is 0 but must be 1 or more."),
        (lambda: SyntheticWorld(0, 1, 0, 64), "photos_per_identity is 0 but must be 1 or more."),
        (lambda: SyntheticWorld(-1, 1, 1, 64), "seed is -1 but must be 0 or more."),
        (lambda: render(WORLD.identity(0), FACING, 800), "size is 800 but must lie between 64"),
        (lambda: PhotoAttributes(yaw=50.0), "yaw is 50.0 but must lie between -35.0 and 35.0."),
        (lambda: PhotoAttributes(hair_dye="teal"), "hair_dye is 'teal' but must be one of none"),
    ],
)
def test_an_illegal_value_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_command_writes_a_picture_and_prints_its_path(tmp_path, capsys):
    out = tmp_path / "world.png"
    main(["sheet", "--out", str(out), "--identities", "2", "--photos", "3", "--size", "64"])
    assert capsys.readouterr().out.strip() == f"wrote {out}"
    with Image.open(out) as picture:
        assert picture.size == (3 * 64 + 2 * 2, 2 * 64 + 2)


def test_ctrl_c_is_told_in_a_line_and_leaves_no_manifest(tmp_path, capsys, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(SyntheticWorld, "photo", stop)
    assert main(["photos", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.endswith("\nerror: stopped; the same command begins again.\n")
    assert not (tmp_path / "manifest.jsonl").exists()


def test_framing_bounds_size_and_turn_and_changes_nothing_else():
    framing = Framing(face_sizes=(0.6, 0.7), turn=0.25)
    framed = SyntheticWorld(11, 12, 12, 64, framing)
    pairs = [
        (framed.attributes(i, j), WORLD.attributes(i, j)) for i in range(12) for j in range(12)
    ]
    for close, usual in pairs:
        assert 0.6 <= close.face_size <= 0.7
        assert close.yaw == pytest.approx(0.25 * usual.yaw)
        placed = {"face_size", "yaw", "pitch", "roll", "center_x", "center_y"}
        for name in vars(usual).keys() - placed:
            assert getattr(close, name) == getattr(usual, name), name
    assert max(abs(usual.yaw) for _, usual in pairs) > 25
