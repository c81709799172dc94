"""How a dataset is built; light to import."""

import os
from dataclasses import dataclass, field

from flashface_jax.data.building.removals import Removals


@dataclass(frozen=True)
class PhotoFormat:
    """How photos are stored.

    Attributes:
        longest_side: longer photos are reduced to it, in pixels.
        quality: of JPEGs that are encoded anew, 1 to 100.
        reference_size: side in pixels of face crops that are stored beside the photos; 0 for none.
        check_pixels: whether photos that keep their own JPEG are decoded to see that they are
            whole, as they are where crops are stored; else only their markers are looked at.
    """

    longest_side: int = 2048
    quality: int = 95
    reference_size: int = 0
    check_pixels: bool = False

    def __post_init__(self) -> None:
        bounds = {"longest_side": (64, 8192), "quality": (1, 100), "reference_size": (0, 1024)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}; choose from {low} to {high}.")


@dataclass(frozen=True)
class BuildOptions:
    """How a dataset is built.

    Attributes:
        form: how photos are stored.
        held_out: identities in the validation split, a tenth of all at most.
        held_out_names: these identities instead, as far as they have photos.
        seed: of which identities are held out.
        shard_bytes: about how many bytes of pictures a file of the dataset holds.
        removals: who and what must not be in the dataset.
        threads: photos examined at the same time.
    """

    form: PhotoFormat = field(default_factory=PhotoFormat)
    held_out: int = 200
    held_out_names: tuple[str, ...] = ()
    seed: int = 0
    shard_bytes: int = 400_000_000
    removals: Removals = field(default_factory=Removals)
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for name, least in {"held_out": 0, "seed": 0, "shard_bytes": 1, "threads": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
