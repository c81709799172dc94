"""Folders of photos with a known right answer, and a model pack that sees it.

Photos are drawn people of the built-in world on a coloured ground, with a red mark where the tiny
SCRFD detector of the insightface tests looks for a face. The recognition model is a linear one,
fitted so that each photo's face gets the vector that was planted for it: the real detector,
the real alignment and ONNX Runtime run, and faces cluster as ArcFace's do.
"""

import dataclasses
import io
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from flashface_jax.curation.measured import main_faces
from flashface_jax.faces.embedding import align
from flashface_jax.faces.files import read_photo
from flashface_jax.faces.insightface_detector import InsightFaceDetector
from flashface_jax.world import SyntheticWorld
from tests.curation.planted import DIMENSIONS, faces, person
from tests.faces.test_insightface import write_scrfd

SIDE = 640
# The box of the detector's first anchor, about its mark.
BOX = (96, 128)
MARK = (32, 48)
PEOPLE = SyntheticWorld(5, 12, 16, 128)


@dataclasses.dataclass
class PhotoWorld:
    """What was made.

    Attributes:
        photos: one folder a person.
        pack: a model pack.
        owners: for each photo whose faces it shows, the largest first; copies share a key.
        expected: for each photo, or other file, what must become of it.
    """

    photos: Path
    pack: Path
    owners: dict[Path, list[str]] = dataclasses.field(default_factory=dict)
    expected: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, name, image, owners, outcome, **saving):
        """Save a photo. Owners are "person/number": the number is of the planted face."""
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **{"compress_level": 1, **saving})
        self.owners[path] = owners
        self.expected[str(path)] = outcome

    def add_file(self, name, data, outcome):
        path = os.path.join(os.fsencode(self.photos), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        self.expected[path.decode("utf-8", "backslashreplace")] = outcome


def picture(key, faces_at):
    """A photo of some drawn people: (person, photo, column, row of the mark in 16 pixels)."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    image = cv2.resize(rng.integers(60, 200, (5, 5, 3), np.uint8), (SIDE, SIDE))
    for who, number, column, row in faces_at:
        x, y = 16 * column - MARK[0], 16 * row - MARK[1]
        drawn = cv2.resize(PEOPLE.photo(who, number).image, BOX, interpolation=cv2.INTER_AREA)
        paler = np.uint8(0.7 * drawn + 0.3 * 128)  # red clothes are no marks
        image[y : y + BOX[1], x : x + BOX[0]] = paler
        image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255, 0, 0
    return image


def blurred(key, who):
    """A photo whose face, with its mark, is out of focus."""
    image = picture(key, [(who, 0, 20, 20)])
    image[16 * 19 : 16 * 22, 16 * 19 : 16 * 22] = 255, 0, 0
    return cv2.GaussianBlur(image, (0, 0), 12)


def jpeg(image, **saving):
    """The bytes of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **saving)
    return file.getvalue()


def write_recogniser(path, matrix):
    """A model of 112x112 pixels: averages of 7x7, times a matrix (768, 512)."""
    from onnx import TensorProto, checker, helper, numpy_helper, save  # noqa: PLC0415

    size = [None, 3, 112, 112]
    nodes = [
        helper.make_node("AveragePool", ["x"], ["cells"], kernel_shape=[7, 7], strides=[7, 7]),
        helper.make_node("Flatten", ["cells"], ["row"]),
        helper.make_node("MatMul", ["row", "matrix"], ["face"]),
    ]
    graph = helper.make_graph(
        nodes,
        "arcface",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [None, matrix.shape[1]])],
        [numpy_helper.from_array(matrix.astype(np.float32), "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    save(model, path)


def cells(crop):
    """What the recognition model multiplies, (768,)."""
    small = cv2.resize(crop, (16, 16), interpolation=cv2.INTER_AREA).astype(float)
    exact = crop.reshape(16, 7, 16, 7, 3).mean((1, 3))
    assert np.abs(small - exact).max() <= 1
    return ((exact - 127.5) / 127.5).transpose(2, 0, 1).ravel()


def planted_face(owner):
    """The vector of "person/number"."""
    who = owner.partition("/")[0]
    center = person(np.random.default_rng(zlib.crc32(who.encode())))
    return faces(np.random.default_rng(zlib.crc32(owner.encode())), center, 1)[0]


def write_pack(world):
    """The detector, and a recognition model fitted to the world's photos."""
    world.pack.mkdir()
    write_scrfd(world.pack / "det_tiny.onnx")
    detector, rows, targets = InsightFaceDetector(world.pack), [], []
    for path, owners in world.owners.items():
        image = read_photo(path, longest_side=None)
        found = main_faces(detector.detect(image))
        assert len(found) == len(owners), (path, found)
        rows += [cells(align(image, face.landmarks)) for face in found]
        targets += [planted_face(owner) for owner in owners]
    rows, targets = np.stack(rows), np.stack(targets)
    # Ridge regression: copies differ a little, and must not be told apart by that.
    weights = rows.T @ np.linalg.solve(rows @ rows.T + 1e-3 * np.eye(len(rows)), targets)
    assert weights.shape[1] == DIMENSIONS
    write_recogniser(world.pack / "w600k_tiny.onnx", weights)


def add_person(world, name, who, count):
    """Photos of a person by themselves, all kept; one in two is a JPEG."""
    for i in range(count):
        key = f"{name}/{i}"
        image = picture(key, [(who, i, 8 + i % 3 * 8, 10 + i % 5 * 5)])
        world.add(f"{name}/{i:02d}.{('png', 'jpg')[i % 2]}", image, [key], "kept")


def add_strangers(world, name, count, outcome):
    for i in range(count):
        key = f"{name}-stranger-{i}/0"
        image = picture(key, [(10, i, 12, 12)])
        world.add(f"{name}/web/stranger{i}.png", image, [key], outcome)


def make_world(folder):
    """People of every kind, and files of every kind."""
    world = PhotoWorld(folder / "photos", folder / "pack")
    for who, name in enumerate(["Ann Lee", "Bo", "Cléo"]):
        add_person(world, name, who, 8)
        add_strangers(world, name, 3, "outside_cluster")
    add_flaws(world, "Ann Lee", 0)
    for i in range(5):
        for who, key in ((4, "one"), (5, "other")):
            image = picture(f"{key}{i}", [(who, i, 12, 12)])
            world.add(f"Two/{key}{i}.png", image, [f"{key}/{i}"], "ambiguous_identity")
    add_strangers(world, "Nobody", 7, "no_dense_cluster")
    world.add("Once/1.png", picture("once", [(6, 0, 12, 12)]), ["once/0"], "too_few_photos")
    add_broken(world)
    write_pack(world)
    return world


def add_flaws(world, name, who):
    """Photos of a person that are not good enough, and copies."""
    first = picture(f"{name}/0", [(who, 0, 8, 10)])
    owner = [f"{name}/0"]
    again = cv2.resize(first, (600, 600), interpolation=cv2.INTER_AREA)
    world.add(f"{name}/00 again.jpg", again, owner, "near_duplicate", quality=90)
    world.add(f"{name}/small.png", first[::2, ::2].copy(), owner, "near_duplicate")
    alone = picture(f"{name}/alone", [(who, 9, 10, 10)])
    small = cv2.resize(alone, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_NEAREST)
    world.add(f"{name}/far.png", small, [f"{name}/90"], "small_face")
    crowd = picture(f"{name}/two", [(who, 10, 8, 10), (11, 0, 28, 20)])
    world.add(f"{name}/two.png", crowd, [f"{name}/91", "friend/0"], "several_faces")
    world.add(f"{name}/soft.png", blurred(f"{name}/soft", who), [f"{name}/92"], "blurred")


def add_broken(world):
    """Files that are no photos, or barely."""
    whole = jpeg(picture("whole", [(7, 0, 12, 12)]))
    ann = "Ann Lee/files"
    world.add_file(f"{ann}/truncated.jpg", whole[: len(whole) // 2], "unreadable")
    world.add_file(f"{ann}/empty.jpg", b"", "unreadable")
    world.add_file(f"{ann}/page.jpg", b"<html>not found</html>", "unreadable")
    world.add_file(f"{ann}/Thumbs.db", b"\xd0\xcf\x11\xe0" * 100, "unreadable")
    world.add_file(f"{ann}/.DS_Store", b"\0", "hidden")
    world.add_file(b"Ann Lee/files/caf\xe9.jpg", whole, "name_not_utf8")
    world.add_file("readme.txt", b"about", "outside_folders")
    bare = picture("bare", [])
    for name, image in {
        "cmyk.jpg": Image.fromarray(bare).convert("CMYK"),
        "sixteen.png": Image.fromarray(bare[..., 0].astype(np.uint16) * 257),
        "moving.gif": Image.fromarray(bare).convert("P"),
        "tiny.png": Image.fromarray(bare[:1, :1].copy()),
        "ribbon.png": Image.fromarray(np.zeros((1, 5000, 3), np.uint8)),
        "jpeg.txt.bin": Image.fromarray(bare),
    }.items():
        file = io.BytesIO()
        image.save(file, {"cmyk.jpg": "JPEG", "moving.gif": "GIF"}.get(name, "PNG"))
        world.add_file(f"{ann}/{name}", file.getvalue(), "no_face")
    world.add_file(f"{ann}/bomb.png", huge_png(), "unreadable")
    (world.photos / ann / "loop").symlink_to(world.photos / "Ann Lee")
    world.expected[str(world.photos / ann / "loop")] = "linked_again"
    (world.photos / ann / "gone.jpg").symlink_to("nowhere")
    world.expected[str(world.photos / ann / "gone.jpg")] = "unreadable"
    (world.photos / "Empty").mkdir()


def huge_png():
    """A PNG that says it has 60,000 x 60,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)
