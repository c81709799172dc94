"""Traces of chosen steps, for TensorBoard's profiler or Perfetto: planned, or asked for in a run.

A run that is under way traces its next steps when a file named `profile` is made in its directory:

    touch runs/flashface/profile

The traces are in profiles/step_NNNNNNN below the directory; open them with
`tensorboard --logdir runs/flashface/profiles` (with tensorboard-plugin-profile installed).
"""

from pathlib import Path
from typing import Any

import jax

from flashface_jax.common.errors import sentence
from flashface_jax.training.config import check_profile_steps

REQUEST = "profile"
TRACES = "profiles"


class Profiler:
    """Starts and stops traces between steps.

        for step in steps:
            profiler.before(step)
            state, metrics = train_step(state, batch)
            profiler.after(step, metrics)

    A file that asks for a trace is looked for before each step, and removed as its trace begins. Of
    several processes with one directory, the one that finds the file traces its own devices.
    What keeps a trace from being taken is told, and stops no training.
    """

    def __init__(self, workdir: Path, steps: tuple[int, int], on_request: int = 5):
        """Plan traces.

        Args:
            workdir: the run's directory.
            steps: the first step to trace and how many; (1, 0) for none.
            on_request: how many steps to trace when the file asks for it.

        Raises:
            ValueError: for steps that are none, or if nothing would be traced on request.
        """
        check_profile_steps(steps)
        if on_request < 1:
            raise ValueError(f"on_request is {on_request}; it must be 1 or more.")
        self._traces, self._request = workdir / TRACES, workdir / REQUEST
        self._planned, self._on_request = steps, on_request
        self._until: int | None = None
        self._path = self._traces

    def before(self, step: int) -> str | None:
        """Start a trace if one is due; returns a line that says so."""
        first, count = self._planned
        if self._until is not None:
            return None
        if self._asked():
            count = self._on_request
        elif not count or step != first:
            return None
        self._path = self._traces / f"step_{step:07d}"
        try:
            jax.profiler.start_trace(self._path)
        except (RuntimeError, OSError) as error:  # such as another trace under way
            return f"step {step} is not traced: {sentence(error)}"
        self._until = step + count - 1
        return f"tracing steps {step} to {self._until}"

    def after(self, step: int, results: Any) -> str | None:
        """Stop a trace that ends with this step; returns a line that says where it is.

        Args:
            step: the step that was just called.
            results: some of its results, waited for so that the trace holds the step's end.
        """
        if self._until is None or step < self._until:
            return None
        jax.block_until_ready(results)
        return self.close()

    def close(self) -> str | None:
        """End a trace that is under way; returns a line that says where it is."""
        if self._until is None:
            return None
        self._until = None
        jax.profiler.stop_trace()
        return f"wrote {self._path}"

    def _asked(self) -> bool:
        """Whether the file that asks for a trace was there; it is removed."""
        try:
            self._request.unlink()
        except FileNotFoundError:
            return False
        return True
