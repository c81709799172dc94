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

CPU_DRAWING_OPTIONS: Options = {
    # A generator of random numbers compiles ten times as fast, and runs as fast.
    "xla_backend_optimization_level": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@functools.cache
def compiler_options() -> Options:
    """Return the `compiler_options` to give to `jax.jit`, empty for a GPU or TPU."""
    return _for_the_default_device(CPU_OPTIONS)


@functools.cache
def drawing_options() -> Options:
    """The same for programs that do no more than draw random numbers."""
    return _for_the_default_device(CPU_DRAWING_OPTIONS)


def _for_the_default_device(for_cpu: Options) -> Options:
    """Options are no stable part of XLA: what the installed version does not know is left out."""
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in for_cpu.items() if _is_known(name, value)}


def _is_known(name: str, value: bool | int | str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
