"""Small photos on disk, manifests that name them, and what the datasets built from them hold."""

import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from flashface_jax.data.building.options import BuildOptions, PhotoFormat
from flashface_jax.data.dataset import REFERENCES, IdClusters
from flashface_jax.data.id_clusters.build import build

WIDTH, HEIGHT = 96, 80
BOX = [30.0, 20.0, 62.0, 60.0]
LANDMARKS = [[38.0, 32.0], [53.0, 34.0], [45.0, 42.0], [39.0, 50.0], [51.0, 52.0]]


def pixels(seed, width=WIDTH, height=HEIGHT):
    """A smooth picture, another one for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(jpeg):
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def exif(orientation=1, **tags):
    """Camera data with a place, a device and a thumbnail's worth of words."""
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010F] = "a camera's maker"
    data[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}
    return data


def line(photo, identity, **more):
    return {"photo": photo, "identity": identity, "face_box": BOX, "landmarks": LANDMARKS, **more}


def write_lines(folder, lines):
    """A manifest of lines: dicts, or bytes as they are."""
    encoded_lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.jsonl").write_bytes(b"".join(one + b"\n" for one in encoded_lines))
    return folder


def write_photo(folder, name, data):
    path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def people(folder, photos, seed=0):
    """Lines of a manifest and files: some photos, in three formats, of each of some people."""
    lines = []
    for i, count in enumerate(photos):
        for j in range(count):
            kind = ("jpg", "png", "progressive.jpg")[(i + j) % 3]
            name = f"person{i:02d}/{j}.{kind}"
            image = pixels((seed, i, j))
            options = {
                "jpg": dict(kind="JPEG", quality=90),
                "png": dict(kind="PNG"),
                "progressive.jpg": dict(kind="JPEG", progressive=True),
            }[kind]
            write_photo(folder, name, encoded(image, **options))
            words = {"caption": f"photo {j} of person {i}", "provenance": "drawn"}
            lines.append(line(name, f"person{i:02d}", **words))
    return lines


def options(**chosen):
    """Options of a build: of the form if it knows them."""
    form = {name: chosen.pop(name) for name in list(chosen) if name in vars(PhotoFormat())}
    return BuildOptions(form=PhotoFormat(**form), **{"threads": 2, **chosen})


def built(source, out, **chosen):
    """The dataset that a build makes."""
    return IdClusters(build(source, out, options(**chosen)))


def outcomes(out):
    text = (out / "outcomes.jsonl").read_text()
    return [json.loads(one) for one in text.splitlines()]


def records(dataset):
    """All that a dataset's records say, by split, in order."""
    found = {}
    for split in dataset.splits:
        found[split] = list(map(described, dataset.photos(split)))
        if dataset.reference_size:
            found[split + REFERENCES] = list(map(described, dataset.references(split)))
    return found


def described(record):
    values = dict(vars(record))
    values["face_box"] = values["face_box"].tolist()
    if values["landmarks"] is not None:
        values["landmarks"] = values["landmarks"].tolist()
    return values
