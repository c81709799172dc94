"""The same run on one device, on eight, and in two processes; resumed on other numbers of them."""

import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from flashface_jax.training.computation.program import Program
from flashface_jax.training.run.checkpoint import Checkpoints
from tests.training import commands, elsewhere

FLOAT_TOLERANCE = 1e-5  # relative, of a loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a short run on one device."""
    folder = tmp_path_factory.mktemp("layouts")
    commands.run(folder / "one", "--config.steps=4")
    return folder


@pytest.fixture(scope="module")
def twenty_losses(folder):
    """Losses of the same run, gone on with."""
    shutil.copytree(folder / "one", folder / "twenty")
    commands.run(folder / "twenty", *data_of(folder), "--config.steps=20")
    return commands.losses(folder / "twenty")


@pytest.fixture(scope="module")
def on_eight(folder):
    """The run on eight devices, whose parameters four share, with everything made again."""
    spread = ["--config.sharding.fsdp=4", "--config.recompute=blocks"]
    commands.run(folder / "eight", *data_of(folder), "--config.steps=4", *spread, devices=8)
    return folder / "eight"


def data_of(folder):
    """Train on the data that the first run made."""
    return [f"--config.data.dataset={folder / 'one' / 'data'}"]


def worst_difference(expected, found):
    return max(abs(found[step] - expected[step]) / expected[step] for step in found)


def test_eight_devices_lose_what_one_does(folder, on_eight):
    found = commands.losses(on_eight)
    worst = worst_difference(commands.losses(folder / "one"), found)
    assert set(found) == {1, 2, 3, 4} and worst <= FLOAT_TOLERANCE, f"{worst:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [4, 1])
def test_a_run_goes_on_with_fewer_devices(folder, on_eight, devices):
    workdir = folder / f"from-eight-on-{devices}"
    shutil.copytree(on_eight, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    commands.run(workdir, *data_of(folder), "--config.steps=3", devices=devices)
    assert "at step 2" in commands.log_of(workdir).read_text()
    found = commands.losses(workdir)
    worst = worst_difference(commands.losses(on_eight), found)
    assert set(found) == {1, 2, 3} and worst <= FLOAT_TOLERANCE, f"{worst:.1e}"


def test_what_eight_devices_saved_is_what_four_and_one_read(tmp_path):
    for task, devices in (("save", 8), ("restore", 4)):
        command = [sys.executable, "-m", "tests.training.elsewhere", task, str(tmp_path)]
        subprocess.run(command, env=commands.environment(devices), check=True)
    program = Program.over(elsewhere.CONFIG, jax.devices()[:1])
    checkpoints = Checkpoints(tmp_path)
    read = checkpoints.restore(program.shapes, program.shardings)
    checkpoints.close()
    assert read is not None
    elsewhere.require_same(tmp_path, read.state)


def in_two_processes(folder, steps):
    """Losses of the run on four devices in each of two processes."""
    workdir = folder / f"two-{steps}"
    options = [*data_of(folder), f"--config.steps={steps}"]
    commands.run(workdir, *options, devices=4, processes=2)
    assert "8 devices" in commands.log_of(workdir).read_text()
    return commands.losses(workdir)


def test_two_processes_lose_what_one_does(folder):
    found = in_two_processes(folder, steps=3)
    worst = worst_difference(commands.losses(folder / "one"), found)
    assert len(found) == 3 and worst <= FLOAT_TOLERANCE, f"{worst:.1e}"


@pytest.mark.slow
def test_two_processes_lose_what_one_does_for_twenty_steps(folder, twenty_losses):
    found = in_two_processes(folder, steps=20)
    worst = worst_difference(twenty_losses, found)
    assert len(found) == 20 and worst <= FLOAT_TOLERANCE, f"{worst:.1e}"


@pytest.mark.slow
def test_eight_devices_lose_what_one_does_for_twenty_steps(folder, twenty_losses):
    commands.run(folder / "eight-20", *data_of(folder), "--config.steps=20", devices=8)
    found = commands.losses(folder / "eight-20")
    worst = worst_difference(twenty_losses, found)
    assert len(found) == 20 and worst <= FLOAT_TOLERANCE, f"{worst:.1e}"


@pytest.mark.slow
def test_all_processes_stop_when_one_is_told_to(folder, twenty_losses):
    workdir = folder / "told"
    options = [*data_of(folder), "--config.steps=1000", "--config.checkpoint_every=1000"]
    processes = commands.start(workdir, *options, devices=1, processes=2)
    while len(commands.losses(workdir)) < 3:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    said = commands.log_of(workdir, 0).read_text()
    assert "told to stop" in said, said[-2000:]
    last = max(commands.losses(workdir))
    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    assert max(saved) == last
    worst = worst_difference(
        {step: loss for step, loss in twenty_losses.items() if step <= last},
        {step: loss for step, loss in commands.losses(workdir).items() if step <= 20},
    )
    assert worst <= FLOAT_TOLERANCE, f"{worst:.1e}"
    assert np.isfinite(list(commands.losses(workdir).values())).all()


@pytest.mark.slow
def test_all_processes_end_when_a_loss_is_no_number(folder):
    workdir = folder / "diverged"
    options = [*data_of(folder), "--config.optimizer.learning_rate=1e30"]
    processes = commands.start(workdir, *options, devices=2, processes=2)
    assert [process.wait(timeout=300) for process in processes] == [1, 1]
    said = commands.log_of(workdir, 0).read_text()
    assert "Step 2 has a loss of" in said and "with references" in said, said[-2000:]
    assert "Traceback" not in said, said[-2000:]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["1"]
