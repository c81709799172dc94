"""What of a dataset is looked at; light to import."""

import os
from dataclasses import dataclass, field

STRIDE = 8  # of every autoencoder that FlashFace knows


@dataclass(frozen=True)
class InspectOptions:
    """What is looked at.

    Attributes:
        sample: photos of each split to read, about; 0 for all.
        seed: of which people's photos are read, and of the samples.
        clusters: suspicious ones to show at most.
        samples: training samples to show.
        image_size: side of their targets in pixels.
        reference_size: side of their references in pixels.
        seconds: that each rate is measured for; 0 for not at all.
        verify: whether every record is read and checked.
        threads: photos read at the same time.
    """

    sample: int = 5000
    seed: int = 0
    clusters: int = 24
    samples: int = 6
    image_size: int = 768
    reference_size: int = 224
    seconds: float = 5.0
    verify: bool = False
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        bounds = {"sample": (0, 10**9), "seed": (0, 2**31), "clusters": (0, 200)}
        bounds |= {"samples": (0, 50), "image_size": (64, 2048), "reference_size": (16, 1024)}
        bounds |= {"seconds": (0, 600), "threads": (1, 256)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}; choose from {low} to {high}.")
        if self.image_size % STRIDE:
            raise ValueError(f"image_size is {self.image_size}; choose a multiple of {STRIDE}.")
