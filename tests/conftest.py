"""Checks array shapes at run time in every test; computes in full float32 precision."""

import os
import tempfile

# The suite compiles far more than it computes: LLVM's optimisations cost more than they save.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")

from jaxtyping import install_import_hook

install_import_hook("flashface_jax", "beartype.beartype")

import jax  # noqa: E402  (after the hook, so that nothing of ours is imported unchecked)

jax.config.update("jax_default_matmul_precision", "float32")
# Runs of the same configuration within one session compile once.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="flashface-tests-"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
