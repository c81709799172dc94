"""A directory of latents in the making: files that are whole stay, and are not made again."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from flashface_jax.common.files import atomic_file, require_new, require_writable
from flashface_jax.common.lock import LOCK, exclusive_lock
from flashface_jax.data.loading.precomputed import (
    FORMAT,
    METADATA,
    REFERENCES,
    TARGETS,
    Description,
    Origin,
    differences,
    file_name,
)

ORIGIN = "origin.json"
# ArrayRecord's headers, and what it fills a file up with, at most.
OVERHEAD, PADDING = 1.01, 1 << 17


@dataclasses.dataclass(frozen=True)
class Draft:
    """What is made, and what of it is there.

    Attributes:
        place: the hidden directory that is worked in.
        origin: what it is made with.
        photos: of each split.
    """

    place: Path
    origin: Origin
    photos: Mapping[str, int]

    def missing(self, split: str) -> dict[int, range]:
        """Files of a split that are not there yet: number -> places of their photos."""
        return {
            number: photos
            for number, photos in enumerate(self.origin.file_bounds(self.photos[split]))
            if not all(
                (self.place / file_name(split, kind, number)).exists()
                for kind in (TARGETS, REFERENCES)
            )
        }

    @property
    def missing_photos(self) -> list[int]:
        """How many photos each file has that is not there yet, of all splits."""
        return [len(photos) for split in self.photos for photos in self.missing(split).values()]

    @property
    def bytes_needed(self) -> int:
        """About how many bytes are still to be written."""
        each = self.origin.targets.size + self.origin.references.size
        files = self.missing_photos
        return int(OVERHEAD * sum(files) * each) + 2 * PADDING * len(files)

    def require_room(self) -> str:
        """Say how much disk the rest takes and how much there is.

        Raises:
            ValueError: there is too little.
        """
        free, needed = shutil.disk_usage(self.place).free, self.bytes_needed
        said = (
            f"{sum(self.missing_photos)} photos to encode take {_gigabytes(needed)} of disk; "
            f"{_gigabytes(free)} are free"
        )
        if needed > free:
            raise ValueError(f"{said} for {self.place.parent}: name another disk with --out.")
        return said

    def finish(self, out: Path) -> None:
        """Describe what is there and give it its name."""
        names = sorted(path.name for path in self.place.iterdir() if not path.name.startswith("."))
        files = {name: (self.place / name).stat().st_size for name in names if name != ORIGIN}
        described = Description(FORMAT, self.origin, dict(self.photos), files)
        with atomic_file(self.place / METADATA) as draft:
            draft.write_text(json.dumps(dataclasses.asdict(described)) + "\n")
        self.place.rename(out)
        # Not before: files without it would be taken for those of any other origin.
        (out / ORIGIN).unlink()
        (out / LOCK).unlink()


@contextlib.contextmanager
def drafting(out: Path, origin: Origin, photos: Mapping[str, int]) -> Iterator[Draft]:
    """Begin a directory, or go on with one that was stopped.

    Raises:
        ValueError: another one is being made there, or one with other photos, weights or options
            was not finished.
        FileExistsError: `out` exists.
    """
    require_new(out)
    require_writable(out.parent)
    place = out.with_name(f".{out.name}.unfinished")
    with exclusive_lock(place):
        _claim(place, origin)
        for left in place.glob(".*.part"):  # by a killed process
            left.unlink()
        (place / METADATA).unlink(missing_ok=True)
        yield Draft(place, origin, photos)


def _claim(place: Path, origin: Origin) -> None:
    described = json.loads(json.dumps(dataclasses.asdict(origin)))
    path = place / ORIGIN
    if not path.exists():
        with atomic_file(path) as draft:
            draft.write_text(json.dumps(described) + "\n")
    elif differ := differences(json.loads(path.read_text()), described):
        raise ValueError(
            f"{place} holds a precomputation that was stopped, with other photos, weights or "
            f"options ({'; '.join(differ)}): give those, or remove it."
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
