"""Small datasets of pictures that can be told apart, built by the real builder."""

from pathlib import Path

import numpy as np

from flashface_jax.data.building.examination import encode_jpeg
from flashface_jax.data.building.options import BuildOptions, PhotoFormat
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.id_clusters.build import build
from flashface_jax.data.manifest import FILE_NAME, PhotoEntry, write_manifest

FACE = (16.0, 8.0, 48.0, 56.0)
UPRIGHT = ((20.0, 20.0), (40.0, 20.0), (30.0, 30.0), (22.0, 40.0), (38.0, 40.0))
LEVELS = 20  # colours of identities and photos are that far apart


def colour(identity: int, photo: int) -> tuple[int, int, int]:
    """The colour of a photo, by which it can be told."""
    return LEVELS * (identity + 1), LEVELS * (photo + 1), 128


def told(colours: np.ndarray) -> np.ndarray:
    """(identity, photo) of pictures' colours, through JPEG."""
    return np.round(colours[..., :2] / LEVELS).astype(int) - 1


def damaged(jpeg: bytes) -> bytes:
    """A JPEG whose markers are right and whose scan is not."""
    return jpeg[:-12] + b"\x00" * 10 + jpeg[-2:]


def flat_photos(folder: Path, counts: list[int], broken: set[tuple[int, int]] = frozenset()):
    """A manifest of flat photos: as many of each identity as are asked for, some of them broken."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for identity, count in enumerate(counts):
        for photo in range(count):
            jpeg = encode_jpeg(np.full((64, 64, 3), colour(identity, photo), np.uint8), 95, "4:4:4")
            name = f"{identity}-{photo}.jpg"
            bad = (identity, photo) in broken
            (folder / name).write_bytes(damaged(jpeg) if bad else jpeg)
            words = {"caption": f"a photo number {photo}", "source_id": name}
            entries.append(PhotoEntry(name, f"person {identity:02d}", FACE, UPRIGHT, **words))
    write_manifest(folder / FILE_NAME, entries)


def flat_dataset(
    folder: Path,
    counts: list[int],
    broken: set[tuple[int, int]] = frozenset(),
    reference_size: int = 0,
) -> IdClusters:
    """A dataset of flat photos without a validation split."""
    flat_photos(folder / "photos", counts, broken)
    options = BuildOptions(PhotoFormat(reference_size=reference_size), held_out=0, threads=1)
    return IdClusters(build(folder / "photos", folder / "data", options))
