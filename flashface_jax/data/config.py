"""What a run is trained on, as its configuration says it."""

from dataclasses import dataclass, field

from flashface_jax.data.loading.draws import DrawOptions
from flashface_jax.data.loading.loader import LoaderOptions
from flashface_jax.world import Framing, SyntheticWorld


@dataclass(frozen=True)
class WorldConfig:
    """The built-in world of identities that a run trains on.

    Attributes:
        seed: seed of the world.
        identities: identities to train on; the following `held_out` ones are never trained on.
        held_out: identities kept for samples and evaluation.
        photos_per_identity: photos drawn of each.
        image_size: side of the drawn photos in pixels, 64 or more.
        framing: how the photos are taken.
        vocabulary: most entries of the tokenizer that is trained on the captions.
    """

    seed: int = 0
    identities: int = 512
    held_out: int = 64
    photos_per_identity: int = 12
    image_size: int = 64
    framing: Framing = field(default_factory=Framing)
    vocabulary: int = 1024

    def draw(self) -> SyntheticWorld:
        """The world that this describes; the first `identities` people are for training."""
        return SyntheticWorld(
            self.seed,
            self.identities + self.held_out,
            self.photos_per_identity,
            self.image_size,
            self.framing,
        )

    @property
    def held_out_people(self) -> range:
        """People of the world that are never trained on."""
        return range(self.identities, self.identities + self.held_out)


@dataclass(frozen=True)
class DataConfig:
    """What a run is trained on.

    Attributes:
        dataset: directory of a dataset that flashface data build made; the built-in
            world if empty.
        precomputed: directory that flashface data precompute made of that dataset:
            the frozen networks do not run in the step; photos are encoded in it if empty.
        world: the built-in world.
        draws: what samples are drawn with.
        loader: how samples are made ready; can differ from host to host, and after a stop.
    """

    dataset: str = ""
    precomputed: str = ""
    world: WorldConfig = field(default_factory=WorldConfig)
    draws: DrawOptions = field(default_factory=DrawOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)

    def __post_init__(self) -> None:
        varied = [name for name, value in vars(self.draws.augmentation).items() if value]
        if self.precomputed and varied:
            raise ValueError(
                f"data.draws.augmentation varies pictures ({', '.join(varied)}), and data."
                "precomputed holds what they gave unvaried: set one of the two to nothing."
            )
