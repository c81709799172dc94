"""train.py as a command: what it says when something is wrong."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from flashface_jax.training.parallel import processes

ROOT = Path(__file__).parents[2]
# The command, where training is stopped by Ctrl-C as soon as it begins.
STOPPED = """
import runpy
from flashface_jax.training.run import loop
def stop(config, workdir):
    raise KeyboardInterrupt
loop.train = stop
runpy.run_path("train.py", run_name="__main__")
"""


def run(*words, program=("train.py",)):
    """The command's exit status and what it says on standard error."""
    command = [sys.executable, *program, "--config", "configs/synthetic.py", *map(str, words)]
    told = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


WRONG = {
    "a field": ("--config.data.loader.worker=1", "has no field 'worker': Did you mean \"workers\""),
    "a number": ("--config.batch_size=0", "batch_size is 0"),
    "a dataset": ("--config.data.dataset=nowhere", "nowhere holds no dataset id_clusters"),
    "a place": ("--workdir=/proc/x", "/proc/x: No such file or directory."),
    "a bucket": ("--workdir=gs://bucket/run", "mount the bucket"),
    "a bucket of photos": ("--config.data.dataset=gs://bucket/data", "mount the bucket"),
    "a file": ("--workdir=README.md", "workdir README.md is a file"),
    "no configuration": ("--config=README.md", "README.md does not exist or is no Python file"),
    "no function": ("--config=train.py", "train.py is no configuration"),
    "a coordinator": ("--coordinator=localhost", "give its port, too"),
    "half of the processes": ("--processes=2", "Give all of --coordinator"),
    "weights": ("--config.initial=nowhere", "nowhere is no weights directory"),
}


@pytest.fixture
def alone(monkeypatch):
    """A machine that knows of no other, as JAX says that in a process that has no devices yet."""

    def initialize(*given):
        raise ValueError(f"{processes.NOBODY}.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(alone, tmp_path, capsys, monkeypatch, name):
    word, said = WRONG[name]
    words = ["--config", "configs/synthetic.py", "--workdir", str(tmp_path / "run"), word]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path("train.py", run_name="__main__")
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


def test_what_is_wrong_is_said_by_the_program(tmp_path):
    status, err = run("--workdir", tmp_path / "run", "--config.data.dataset=nowhere")
    assert status == 1
    assert err.startswith("error: nowhere holds no dataset") and err.count("\n") == 1


def test_ctrl_c_is_told_in_a_line(tmp_path):
    status, err = run("--workdir", tmp_path / "run", program=("-c", STOPPED))
    assert status == 130
    assert err == "\nerror: stopped; the same command goes on from the newest checkpoint.\n"


def test_wrong_usage_shows_how_it_is_used(tmp_path):
    status, err = run("--workdir", tmp_path / "run", "--steps=3")
    assert status == 2 and "unrecognized argument --steps=3" in err and "--help explains" in err
