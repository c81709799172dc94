"""Traces of chosen steps."""

import jax
import jax.numpy as jnp
import pytest

from flashface_jax.training.monitoring.profiling import Profiler


def run(profiler, steps, before=lambda step: None):
    """Call a step with traces as they come; the lines that were said."""
    said = []
    step_function = jax.jit(lambda x: jnp.sin(x) + 1)
    value = jnp.zeros(4)
    for step in steps:
        before(step)
        said.append(profiler.before(step))
        value = step_function(value)
        said.append(profiler.after(step, value))
    return [line for line in said if line]


def traces(workdir):
    return sorted(path.parts[-5] for path in workdir.rglob("*.xplane.pb"))


def test_planned_steps_are_traced_once(tmp_path):
    said = run(Profiler(tmp_path, (3, 2)), range(1, 7))
    assert said == ["tracing steps 3 to 4", f"wrote {tmp_path}/profiles/step_0000003"]
    assert traces(tmp_path) == ["step_0000003"]


def test_without_a_plan_nothing_is_traced(tmp_path):
    assert run(Profiler(tmp_path, (1, 0)), range(1, 4)) == []
    assert not (tmp_path / "profiles").exists()


def test_a_file_asks_for_a_trace_of_the_next_steps_and_is_removed(tmp_path):
    def ask(step):
        if step == 4:
            (tmp_path / "profile").touch()

    said = run(Profiler(tmp_path, (1, 0), on_request=2), range(1, 8), ask)
    assert said == ["tracing steps 4 to 5", f"wrote {tmp_path}/profiles/step_0000004"]
    assert traces(tmp_path) == ["step_0000004"]
    assert not (tmp_path / "profile").exists()


def test_a_file_made_during_a_trace_asks_for_another_one(tmp_path):
    def ask(step):
        if step in (1, 2):
            (tmp_path / "profile").touch()

    said = run(Profiler(tmp_path, (1, 0), on_request=2), range(1, 5), ask)
    assert [line for line in said if line.startswith("tracing")] == [
        "tracing steps 1 to 2",
        "tracing steps 3 to 4",
    ]
    assert traces(tmp_path) == ["step_0000001", "step_0000003"]


def test_a_run_that_ends_within_a_trace_keeps_it(tmp_path):
    profiler = Profiler(tmp_path, (2, 10))
    assert run(profiler, range(1, 4)) == ["tracing steps 2 to 11"]
    assert profiler.close() == f"wrote {tmp_path}/profiles/step_0000002"
    assert profiler.close() is None
    assert traces(tmp_path) == ["step_0000002"]


def test_a_trace_that_cannot_be_taken_stops_no_training(tmp_path):
    with jax.profiler.trace(tmp_path / "other"):
        (said,) = run(Profiler(tmp_path, (1, 1)), range(1, 3))
    assert said.startswith("step 1 is not traced: ") and said.endswith(".")


@pytest.mark.parametrize("steps", [(0, 1), (-1, 5), (5, -1)])
def test_steps_that_are_none_are_refused(tmp_path, steps):
    with pytest.raises(ValueError, match=r"profile_steps is .* 1 or more"):
        Profiler(tmp_path, steps)


def test_a_request_for_no_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="on_request is 0"):
        Profiler(tmp_path, (1, 0), on_request=0)
