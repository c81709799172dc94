"""The smallest run as a configuration file, for whole commands."""

import dataclasses

from ml_collections import ConfigDict

from flashface_jax.data.config import DataConfig, WorldConfig
from flashface_jax.training.parallel.sharding import ShardingConfig
from tests.small import with_changes


def get_config() -> ConfigDict:
    """Return the run; its kernels are split however small they are."""
    world = WorldConfig(identities=10, held_out=2, photos_per_identity=5, vocabulary=600)
    config = with_changes(
        batch_size=8,
        trainable=("flashface",),
        grid_people=0,
        checkpoint_every=2,
        data=DataConfig(world=world),
        sharding=ShardingConfig(smallest=256),
    )
    return ConfigDict(dataclasses.asdict(config))
