"""What is random of a training sample, apart from any picture (paper, implementation details)."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True)
class DropRates:
    """Probability, each independent and per sample, that a condition is left out.

    Attributes:
        text: the caption becomes the empty prompt.
        face_mask: the mask becomes zeros.
        references: reference attention sees the image alone.
    """

    text: float = 0.1
    face_mask: float = 0.1
    references: float = 0.1

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            if not 0 <= rate <= 1:
                raise ValueError(f"The drop rate of {name} is {rate}; it must lie in [0, 1].")


@dataclass(frozen=True)
class Augmentation:
    """How pictures are varied; the paper does not, and neither does the default.

    Attributes:
        flip: probability that a picture, each on its own, is mirrored with its box and landmarks.
        brightness: a reference is made up to this much brighter or darker, as a fraction.
        contrast: likewise its contrast.
        saturation: likewise its saturation.
    """

    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"augmentation.{name} is {value}; it must lie in [0, 1].")


@dataclass(frozen=True)
class DrawOptions:
    """What samples are drawn with.

    Attributes:
        max_references: most references of a sample; the number is uniform in 1..this.
        drop: how often each condition is left out.
        augmentation: how pictures are varied.
    """

    max_references: int = 4
    drop: DropRates = field(default_factory=DropRates)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.max_references < 1:
            raise ValueError(f"max_references is {self.max_references}; it must be 1 or more.")


@dataclass(frozen=True)
class Draw:
    """What was drawn for one sample of an identity with some photos.

    Attributes:
        order: all its photos, from 0: the first is the target, the next ones the references; those
            behind take the place of photos that do not decode.
        references: how many references; fewer if there are not so many photos.
        drop_text: whether the caption is left out.
        drop_face_mask: likewise the mask.
        drop_references: likewise the references.
        flips: whether the target, and each reference, is mirrored.
        colours: factors of brightness, contrast and saturation of each reference.
    """

    order: Int64[np.ndarray, " photos"]
    references: int
    drop_text: bool
    drop_face_mask: bool
    drop_references: bool
    flips: Bool[np.ndarray, " pictures"]
    colours: Float64[np.ndarray, "references 3"]


def draw_sample(rng: np.random.Generator, photos: int, options: DrawOptions) -> Draw:
    """Draw a target and 1..N references, all different photos, and what is dropped and varied.

    Every number is drawn whether it is used or not, so that an option changes nothing but itself.

    Args:
        rng: of this sample alone.
        photos: how many the identity has, two or more.
        options: what to draw with.
    """
    drop, vary, most = options.drop, options.augmentation, options.max_references
    strengths = np.array([vary.brightness, vary.contrast, vary.saturation])
    order = rng.permutation(photos)
    wanted = int(rng.integers(1, most + 1))
    text, face_mask, references = rng.random(3)
    flips = rng.random(1 + most) < vary.flip
    colours = 1 + strengths * rng.uniform(-1, 1, (most, 3))
    return Draw(
        order=order,
        references=min(wanted, photos - 1),
        drop_text=bool(text < drop.text),
        drop_face_mask=bool(face_mask < drop.face_mask),
        drop_references=bool(references < drop.references),
        flips=flips,
        colours=colours,
    )
