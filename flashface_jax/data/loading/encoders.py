"""The frozen networks whose outputs can be stored: what they give, and which they are."""

from flashface_jax.data.loading.encoded_record import Sizes
from flashface_jax.models.network import Params
from flashface_jax.weights.directory import sha256_of
from flashface_jax.weights.system import SystemConfig

ENCODERS = ("autoencoder", "text_tower")


def sizes_of(system: SystemConfig) -> Sizes:
    """Shapes of what a system's encoders give."""
    return Sizes(
        image_size=system.image_size,
        reference_size=system.reference_size,
        stride=system.autoencoder.stride,
        latent_channels=system.autoencoder.latent_channels,
        words=system.text_tower.length,
        context_channels=system.text_tower.channels,
    )


def encoders_sha256(params: dict[str, Params]) -> str:
    """Hash of the parameters of autoencoder and text tower.

    The text tower's projection is left out: nothing that is stored depends on it.
    """
    hashed = {name: dict(params[name]) for name in ENCODERS}
    hashed["text_tower"].pop("projection", None)
    return sha256_of(hashed)
