"""A `jax.jit` for functions that a test calls a few times: it compiles faster and runs slower."""

from functools import partial

import jax

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
