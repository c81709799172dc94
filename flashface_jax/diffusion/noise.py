"""The noise that training adds."""

import jax
from jaxtyping import Array, Float


def draw_noise(
    key: jax.Array, shape: tuple[int, int, int, int], offset: float = 0.0
) -> Float[Array, "batch h w c"]:
    """Draw noise, offset by a constant for each sample and channel.

    Plain noise says next to nothing of a channel's mean over many positions, so a network learns to
    read the image's mean off the noisy one, and draws images of middling brightness. Noise whose
    means differ, too, lets it draw dark and bright ones (N. Guttenberg, "Diffusion with Offset
    Noise", 2023, who used 0.1). The network predicts the sum.

    Args:
        key: random key.
        shape: of the latents, (batch, h, w, c).
        offset: standard deviation of the constants; 0 for plain noise, which the paper has.

    Returns:
        Normal noise. Two positions of one sample's channel have covariance offset² and each the
        variance 1 + offset²; samples and channels are independent.
    """
    if not offset:
        return jax.random.normal(key, shape)
    noise_key, offset_key = jax.random.split(key)
    batch, *_, channels = shape
    constant = jax.random.normal(offset_key, (batch, 1, 1, channels))
    return jax.random.normal(noise_key, shape) + offset * constant
