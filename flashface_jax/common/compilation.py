"""How XLA is to compile this project's programs for the default device."""

import functools

import jax

Options = dict[str, bool | int | str]

CPU_OPTIONS: Options = {
    # YNNPACK, which XLA gives its matmuls and convolutions to, is slower at a U-Net's: half as
    # fast on small feature maps.
    "xla_cpu_experimental_ynn_fusion_type": "",
    # The widest registers that the processor has, where XLA stops at 256 bits.
    "xla_cpu_prefer_vector_width": 512,
}


@functools.cache
def compiler_options() -> Options:
    """Return the `compiler_options` to give to `jax.jit`, empty for a GPU or TPU.

    Options are no stable part of XLA: what the installed version does not know is left out.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in CPU_OPTIONS.items() if _is_known(name, value)}


def _is_known(name: str, value: bool | int | str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
