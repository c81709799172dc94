"""A dataset of drawn people, some of them with planted flaws, built by the real command."""

import functools
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from flashface_jax.data import build
from flashface_jax.data.manifest import PhotoEntry, write_manifest
from flashface_jax.world import SyntheticWorld

ORDINARY, PHOTOS, SIZE = 5, 6, 96
HOSTILE_NAME = '<script>alert("name")</script>'
HOSTILE_CAPTIONS = [
    '<script src="https://evil.example/x.js"></script>',
    "\"'><img src=http://evil.example/x.png onerror=alert(1)>",
    "</style></title><!-- &lt;b&gt; $name ${body} | `code` [link](http://evil.example)",
    "שלום \u202eיהי אור\u202c 👩🏽\u200d🦰 " + "e\u0301" * 40,
    "endless" * 2000,
    "line\nfeed\x00\x07 and \x1b[31mcolour",
]


def plant(folder: Path, *extra: str, broken: bool = True) -> Path:
    """Draw photos, write a manifest, and build a dataset below a folder; its path."""
    source = folder / "photos"
    source.mkdir(parents=True)
    writer = _Writer(source)
    world = SyntheticWorld(11, ORDINARY + 11, 30, SIZE)
    for i in range(ORDINARY):
        writer.add(world, i, f"ordinary {i:02d}")
    _plant_flaws(writer, world, broken)
    write_manifest(source / "manifest.jsonl", writer.entries)
    asked = ["--source", str(source), "--out", str(folder / "data"), "--held-out", "1"]
    # With this seed an ordinary person is held out.
    assert build.main([*asked, "--seed", "0", "--longest-side", "96", *extra]) == 0
    return folder / "data" / "id_clusters" / "1.0.0"


class _Writer:
    """Photos and what a manifest says of them."""

    def __init__(self, folder: Path):
        self.folder, self.entries = folder, list[PhotoEntry]()

    def add(self, world, i, identity, photos=PHOTOS, change=lambda image, entry, j: (image, entry)):
        """Add photos of a person, each changed; `change` may give bytes in place of an image."""
        for j in range(photos):
            photo = drawn(world, i, j)
            entry = PhotoEntry(
                f"{i}_{j}.jpg",
                identity,
                tuple(photo.face_box.tolist()),
                tuple(map(tuple, photo.landmarks.tolist())),
                photo.caption,
                provenance="drawn, CC0",
            )
            image, entry = change(Image.fromarray(photo.image), entry, j)
            data = image if isinstance(image, bytes) else jpeg(image)
            (self.folder / entry.photo).write_bytes(data)
            self.entries.append(entry)


@functools.cache
def drawn(world, i, j):
    """A photo, drawn once for all datasets."""
    return world.photo(i, j)


def jpeg(image, quality=92):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def damaged(data: bytes) -> bytes:
    """A JPEG whose markers are right and whose picture is not."""
    scan = data.index(b"\xff\xda") + 20
    return data[: scan + 200] + data[-2:]


def _plant_flaws(writer, world, broken):
    start = ORDINARY
    writer.add(world, start, "alone", photos=1)
    writer.add(world, start + 1, "many", photos=30)
    writer.add(world, start + 2, "twins")
    for quality in (60, 75):
        first = next(entry for entry in writer.entries if entry.identity == "twins")
        image = Image.open(writer.folder / first.photo)
        name = f"twin_{quality}.jpg"
        (writer.folder / name).write_bytes(jpeg(image, quality))
        writer.entries.append(replace(first, photo=name, source_id=name))
    blur = ImageFilter.GaussianBlur(4)
    writer.add(world, start + 3, "blurred", change=lambda p, e, j: (p.filter(blur), e))
    writer.add(world, start + 4, "small", change=_small)
    writer.add(world, start + 5, "broken", change=lambda p, e, j: (_broken(p, j < 2 * broken), e))
    lying = ((50.0, 20.0), (52.0, 60.0), (60.0, 40.0), (70.0, 30.0), (70.0, 50.0))
    writer.add(world, start + 6, "lying", change=lambda p, e, j: (p, replace(e, landmarks=lying)))
    writer.add(world, start + 7, "bare", change=_bare)
    same = lambda p, e, j: (p, replace(e, caption="a person"))  # noqa: E731
    writer.add(world, start + 8, "one caption", change=same)
    writer.add(world, start + 9, "cut", change=_cut)
    said = lambda p, e, j: (  # noqa: E731
        p,
        replace(e, caption=HOSTILE_CAPTIONS[j], provenance=HOSTILE_CAPTIONS[j], landmarks=None),
    )
    writer.add(world, start + 10, HOSTILE_NAME, change=said)


def _broken(image, broken):
    return damaged(jpeg(image)) if broken else image


def _small(image, entry, j):
    """The first photo's face is a twelfth as large."""
    if j:
        return image, entry
    ground = Image.fromarray(np.full((SIZE, SIZE, 3), 128, np.uint8))
    ground.paste(image.resize((8, 8)), (40, 40))
    x1, y1, x2, y2 = (40 + edge / 12 for edge in entry.face_box)
    landmarks = tuple((40 + x / 12, 40 + y / 12) for x, y in entry.landmarks)
    return ground, replace(entry, face_box=(x1, y1, x2, y2), landmarks=landmarks)


def _bare(image, entry, j):
    return image, replace(entry, landmarks=None, caption="", provenance="")


def _cut(image, entry, j):
    x1, y1, x2, y2 = entry.face_box
    return image, replace(entry, face_box=(-0.1 * (x2 - x1), y1, x2 - x1, y2))
