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

from flashface_jax.training.checkpoint import CheckpointError, Checkpoints
from flashface_jax.training.loop import DivergedError, train
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.training.program import Program
from tests.small import CONFIG, with_changes
from tests.training import commands

EVERY_STEP = "--config.checkpoint_every=1"
SHORT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a short run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("stops")
    commands.run(folder / "undisturbed", f"--config.steps={SHORT}", EVERY_STEP)
    return folder


def go_on(folder, name, steps):
    """Start a run on the same data."""
    data = f"--config.data.dataset={folder / 'undisturbed' / 'data'}"
    return commands.start(folder / name, f"--config.steps={steps}", EVERY_STEP, data)[0]


def wait_for_steps(process, workdir, wanted):
    """Wait until so many more steps are logged; False if the run ended before."""
    before = len(commands.losses(workdir))
    while len(commands.losses(workdir)) < before + wanted:
        if process.poll() is not None:
            assert process.returncode == 0, commands.log_of(workdir).read_text()[-3000:]
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("kills", "steps"), [(1, SHORT), pytest.param(20, 80, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_any_moment_goes_on_as_if_it_had_not_been(folder, kills, steps):
    workdir, moments = folder / f"killed-{kills}", random.Random(kills)
    done = 0
    while done < kills:
        process = go_on(folder, workdir.name, steps)
        # A step with its checkpoint takes about half a second, most of which is writing.
        running = wait_for_steps(process, workdir, wanted=1)
        assert running, f"over after {done} kills: more steps are needed"
        time.sleep(moments.uniform(0, 1))
        process.kill()
        process.wait()
        done += 1
    undisturbed = "undisturbed" if steps == SHORT else f"undisturbed-{steps}"
    for name in {workdir.name, undisturbed}:
        finishing = go_on(folder, name, steps)
        assert finishing.wait() == 0, commands.log_of(folder / name).read_text()[-3000:]
    expected, found = (commands.losses(folder / name) for name in (undisturbed, workdir.name))
    assert len(found) == steps and found == expected


def test_a_run_that_is_told_to_stop_saves_and_ends_well(folder):
    workdir = folder / "told"
    process = commands.start(
        workdir,
        f"--config.data.dataset={folder / 'undisturbed' / 'data'}",
        "--config.steps=100000",
        "--config.checkpoint_every=100000",
    )[0]
    assert wait_for_steps(process, workdir, wanted=3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    last = max(commands.losses(workdir))
    said = commands.log_of(workdir).read_text()
    assert f"told to stop: saving step {last}; the same command goes on from it" in said
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [str(last)]


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
