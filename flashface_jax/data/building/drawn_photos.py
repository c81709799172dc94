"""Photos of a world as files with a manifest: the source that any dataset is built from."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from flashface_jax.data.building.examination import encode_jpeg
from flashface_jax.data.manifest import FILE_NAME, Landmarks, PhotoEntry, write_manifest
from flashface_jax.world.world import Photo, SyntheticWorld

QUALITY = 95
PROVENANCE = "drawn by flashface-jax; nobody's likeness"


def identity_name(identity: int) -> str:
    """What a drawn person is called; names sort as their numbers do."""
    return f"drawn-{identity:06d}"


def write_photos(
    world: SyntheticWorld,
    identities: Iterable[int],
    folder: Path,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Draw all photos of some people as JPEGs in `folder`, and its manifest last.

    Args:
        world: who and what to draw.
        identities: people of it.
        folder: made if it does not exist.
        advance: called after each photo.
    """

    def drawn() -> Iterator[PhotoEntry]:
        for i in identities:
            (folder / identity_name(i)).mkdir(parents=True, exist_ok=True)
            for j in range(world.photos_per_identity):
                yield _write(world.photo(i, j), folder, f"{identity_name(i)}/{j:04d}.jpg")
                advance()

    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / FILE_NAME, drawn())


def _write(photo: Photo, folder: Path, name: str) -> PhotoEntry:
    # Drawn photos are small, and eyes are a few pixels wide: colour at full resolution.
    (folder / name).write_bytes(encode_jpeg(photo.image, QUALITY, "4:4:4"))
    a, b, c, d, e = ((float(x), float(y)) for x, y in photo.landmarks.tolist())
    landmarks: Landmarks = (a, b, c, d, e)
    x1, y1, x2, y2 = photo.face_box.tolist()
    return PhotoEntry(
        photo=name,
        identity=identity_name(photo.identity),
        face_box=(x1, y1, x2, y2),
        landmarks=landmarks,
        caption=photo.caption,
        source_id=photo.source_id,
        provenance=PROVENANCE,
    )


def write_folder(world: SyntheticWorld, out: Path) -> None:
    """Write photos and manifest, with a progress bar."""
    total = world.num_identities * world.photos_per_identity
    with tqdm(total=total, desc="drawing photos", unit="photo") as bar:
        write_photos(world, range(world.num_identities), out, bar.update)
