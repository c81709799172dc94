"""Compiling ahead of time, and what the compiler says of the result."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

# Of XLA's compilers only the one for TPUs knows it: 4 to 10 times faster, memory a little larger.
FAST = {"exec_time_optimization_effort": -1.0}


class DoesNotFitError(ValueError):
    """The program needs more memory than a chip has."""


def compile_program(lowered: jax.stages.Lowered, fast: bool) -> jax.stages.Compiled:
    """Compile a program for the devices that it was lowered for.

    Args:
        lowered: the program.
        fast: for TPUs only: optimise less.

    Raises:
        DoesNotFitError: if the compiler finds that the chip's memory does not suffice.
    """
    options: Any = FAST if fast else None  # JAX's annotation knows of no numbers
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        said = " ".join(str(error).split())
        if not said.startswith("RESOURCE_EXHAUSTED"):
            raise
        raise DoesNotFitError(
            said.removeprefix("RESOURCE_EXHAUSTED: ").partition(". ")[0]
        ) from None


def mesh_of(compiled: jax.stages.Compiled) -> jax.sharding.Mesh | None:
    """Return the mesh that a program's arguments are laid out on, if any."""
    for sharding in jax.tree.leaves(compiled.input_shardings):
        if isinstance(sharding, jax.sharding.NamedSharding):
            mesh = sharding.mesh
            return mesh if isinstance(mesh, jax.sharding.Mesh) else None
    return None


@contextlib.contextmanager
def elapsing(what: str) -> Iterator[None]:
    """Show on standard error what is going on and for how long, as no progress can be known."""
    done = threading.Event()
    interval = 1.0 if sys.stderr.isatty() else 60.0  # a log wants no line a second
    with tqdm(desc=what, bar_format="{desc} {elapsed}", total=1) as shown:

        def refresh() -> None:
            while not done.wait(interval):
                shown.refresh()

        clock = threading.Thread(target=refresh, daemon=True)
        clock.start()
        try:
            yield
        finally:
            done.set()
            clock.join()
