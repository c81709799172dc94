"""Which attention a machine should run."""

from typing import get_args

import jax

from flashface_jax.common.choices import AttentionName
from flashface_jax.models.attention.attend import Attend, BlockedAttention

# All heads at once, as accelerators like it; 256 MiB of logits.
ALL_HEADS = BlockedAttention(max_logits=1 << 26, head_by_head=False)
# A CPU keeps the logits of one head's block, 8 MiB, in its cache.
HEAD_BY_HEAD = BlockedAttention(max_logits=1 << 21, head_by_head=True)

# Pairs of query and key of a head up to which plain XLA needs little memory: SD-1.5's 24x24 level
# and below, with references.
SMALL = 576 * 1024

NAMES = get_args(AttentionName)


def best_attention(platform: str | None = None) -> Attend:
    """Return the backend for a platform, "cpu", "gpu" or "tpu"; JAX's default one if None."""
    best = {"tpu": "splash", "gpu": "cudnn"}
    platform = platform or jax.default_backend()
    return attention_named(best.get(platform, "blocked"), platform)


def attention_named(name: str, platform: str | None = None) -> Attend:
    """Return a backend by its name.

    Args:
        platform: what it is to run on; JAX's default one if None.
        name: `blocked`, plain XLA for any device; `splash`, JAX's kernel for TPUs; `cudnn`,
            NVIDIA's for its GPUs; or `auto`, the one of these that suits the default device.
            The kernels leave what they do not take, and few tokens, to `blocked`.

    Raises:
        ValueError: for another name, or if the platform cannot run that backend.
    """
    if name not in NAMES:
        raise ValueError(f"No attention is named {name!r}: choose among {', '.join(NAMES)}.")
    if name == "auto":
        return best_attention(platform)
    device = platform or jax.default_backend()
    if name == "blocked":
        return HEAD_BY_HEAD if device == "cpu" else ALL_HEADS
    needed = {"splash": "tpu", "cudnn": "gpu"}[name]
    if device != needed:
        raise ValueError(
            f"Attention {name!r} needs a {needed.upper()} but JAX runs on a {device.upper()}: "
            "choose auto or blocked."
        )
    # Kernels are no stable part of JAX: only a machine that runs them depends on them.
    if name == "splash":
        from flashface_jax.models.attention.splash import SplashAttention  # noqa: PLC0415

        return SplashAttention(ALL_HEADS, SMALL)
    from flashface_jax.models.attention.cudnn import CudnnAttention, compute_capability  # noqa: PLC0415

    return CudnnAttention(ALL_HEADS, SMALL, compute_capability())
