"""Runs that are killed, told to stop, find damage, or diverge: nothing good is lost."""

import dataclasses
import random
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from flashface_jax.training.computation.program import Program
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.training.run.checkpoint import CheckpointError, Checkpoints
from flashface_jax.training.run.loop import DivergedError, train
from tests.small import CONFIG, with_changes
from tests.training import commands

EVERY_STEP = "--config.checkpoint_every=1"
ENDLESS = "--config.steps=100000"
KILLS, STEPS = 20, 80


def start(workdir, *options):
    """Start a run that saves after every step, unless an option says otherwise."""
    return commands.start(workdir, EVERY_STEP, *options)[0]


def data_of(workdir):
    """Train on the data that a run made."""
    return f"--config.data.dataset={workdir / 'data'}"


def wait_for_steps(process, workdir, wanted):
    """Wait until so many more steps are logged."""
    before = len(commands.losses(workdir))
    while len(commands.losses(workdir)) < before + wanted:
        assert process.poll() is None, commands.log_of(workdir).read_text()[-3000:]
        time.sleep(0.01)


def kill_amid_steps(process, workdir, moments):
    """Kill a run at some moment after its next step."""
    wait_for_steps(process, workdir, wanted=1)
    # A step with its checkpoint takes about half a second, most of which is writing.
    time.sleep(moments.uniform(0, 1))
    process.kill()
    process.wait()


def test_a_run_killed_and_then_told_to_stop_goes_on_as_if_it_had_not_been(tmp_path):
    workdir = tmp_path / "disturbed"
    kill_amid_steps(start(workdir, ENDLESS), workdir, random.Random(0))
    process = start(workdir, ENDLESS, "--config.checkpoint_every=100000")
    wait_for_steps(process, workdir, wanted=2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    found = commands.losses(workdir)
    said = commands.log_of(workdir).read_text()
    assert f"told to stop: saving step {max(found)}; the same command goes on from it" in said
    assert str(max(found)) in [path.name for path in (workdir / "checkpoints").iterdir()]
    steps = f"--config.steps={max(found)}"
    assert start(tmp_path / "undisturbed", steps, data_of(workdir)).wait() == 0
    assert found == commands.losses(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_goes_on_as_if_it_had_not_been(tmp_path):
    steps, moments = f"--config.steps={STEPS}", random.Random(KILLS)
    assert start(tmp_path / "undisturbed", steps).wait() == 0
    options = steps, data_of(tmp_path / "undisturbed")
    for _ in range(KILLS):
        kill_amid_steps(start(tmp_path / "killed", *options), tmp_path / "killed", moments)
    assert start(tmp_path / "killed", *options).wait() == 0
    found = commands.losses(tmp_path / "killed")
    assert len(found) == STEPS and found == commands.losses(tmp_path / "undisturbed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's program, and a folder with checkpoints of steps 1 and 2 that differ."""
    folder = tmp_path_factory.mktemp("saved")
    program = Program.over(CONFIG, jax.devices()[:1])
    state = program.fresh_state()
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        moved = dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))
        checkpoints.save(moved, step, {"next": step})
    checkpoints.close()
    return program, folder


def restored(program, folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(program.shapes, program.shardings)
    finally:
        checkpoints.close()


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate_parameters(checkpoint):
    path = largest_file(checkpoint / "params-flashface")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_the_optimizer(checkpoint):
    shutil.rmtree(checkpoint / "optimizer")


def spoil_the_data_position(checkpoint):
    largest_file(checkpoint / "data").write_text("{")


@pytest.mark.parametrize(
    "damage", [truncate_parameters, lose_the_optimizer, spoil_the_data_position]
)
def test_a_damaged_checkpoint_is_named_and_passed_over(saved, tmp_path, damage, monkeypatch):
    program, folder = saved
    workdir = tmp_path / "run"
    shutil.copytree(folder, workdir)
    damage(workdir / "checkpoints" / "2")
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *parts: warnings.append(text % parts))
    read = restored(program, workdir)
    assert int(read.state.step) == 1 and read.data == {"next": 1}
    assert f"{workdir}/checkpoints/2 cannot be read" in warnings[0], warnings
    assert (workdir / "damaged" / "2").is_dir(), "nothing is thrown away"
    # The step that it stands for can be saved again.
    checkpoints = Checkpoints(workdir)
    checkpoints.save(dataclasses.replace(read.state, step=jnp.asarray(2)), 2, {"next": 2})
    checkpoints.close()
    assert int(restored(program, workdir).state.step) == 2


def test_a_half_written_checkpoint_is_passed_over(saved, tmp_path):
    program, folder = saved
    workdir = tmp_path / "run"
    shutil.copytree(folder, workdir)
    half = workdir / "checkpoints" / "3.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints" / "2" / "optimizer", half / "optimizer")
    assert int(restored(program, workdir).state.step) == 2


def test_a_run_of_nothing_but_damage_is_not_begun_anew(saved, tmp_path):
    program, folder = saved
    workdir = tmp_path / "run"
    shutil.copytree(folder, workdir)
    for step in ("1", "2"):
        lose_the_optimizer(workdir / "checkpoints" / step)
    with pytest.raises(CheckpointError, match=r"No checkpoint of .* can be read \(2, 1\)"):
        restored(program, workdir)
    assert (workdir / "checkpoints" / "2").is_dir()


def test_a_run_without_checkpoints_has_nothing_to_restore(saved, tmp_path):
    assert restored(saved[0], tmp_path) is None


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    # The first update is so large that the second step's activations overflow.
    config = with_changes(optimizer=OptimizerConfig(learning_rate=1e30), grid_people=0)
    with pytest.raises(DivergedError) as raised:
        train(config, tmp_path)
    message = str(raised.value)
    assert "Step 2 has a loss of" in message and "with references" in message, message
    assert "The state after step 1 is kept" in message
    program = Program.over(config)
    read = restored(program, tmp_path)
    assert int(read.state.step) == 1 and bool(read.state.healthy)
    assert read.data["next_index"] == config.batch_size
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(read.state.params))
