"""Checks array shapes at run time in every test; computes in full float32 precision."""

from jaxtyping import install_import_hook

install_import_hook("flashface_jax", "beartype.beartype")

import jax  # noqa: E402  (after the hook, so that nothing of ours is imported unchecked)

jax.config.update("jax_default_matmul_precision", "float32")
