"""Which attention a machine should run."""

import jax

from flashface_jax.models.attention import Attend, BlockedAttention

# All heads at once, as accelerators like it; 256 MiB of logits.
ALL_HEADS = BlockedAttention(max_logits=1 << 26, head_by_head=False)
# A CPU keeps the logits of one head's block, 8 MiB, in its cache.
HEAD_BY_HEAD = BlockedAttention(max_logits=1 << 21, head_by_head=True)


def best_attention() -> Attend:
    """Return the backend for JAX's default device."""
    return HEAD_BY_HEAD if jax.default_backend() == "cpu" else ALL_HEADS
