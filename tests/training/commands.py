"""Runs of train.py in processes of their own, on any number of virtual devices."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CONFIG = "tests/training/small_config.py"


def environment(devices: int) -> dict[str, str]:
    """For a process with as many CPU devices."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(REPOSITORY),
    }


def start(
    workdir: Path, *options: str, devices: int = 1, processes: int = 1
) -> list[subprocess.Popen]:
    """Start a run; its output goes to `workdir`.log, one a process."""
    command = [sys.executable, "train.py", "--config", CONFIG, "--workdir", str(workdir), *options]
    port = free_port()
    started = []
    for process in range(processes):
        joined = [
            f"--coordinator=127.0.0.1:{port}",
            f"--processes={processes}",
            f"--process={process}",
        ]
        with log_of(workdir, process).open("w") as log:
            started.append(
                subprocess.Popen(
                    [*command, *(joined if processes > 1 else [])],
                    cwd=REPOSITORY,
                    env=environment(devices),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def run(workdir: Path, *options: str, **where) -> None:
    """Run to the end, which must be a good one."""
    for process, started in enumerate(start(workdir, *options, **where)):
        status = started.wait()
        assert status == 0, log_of(workdir, process).read_text()[-3000:]


def log_of(workdir: Path, process: int = 0) -> Path:
    """Where a process' output goes."""
    return workdir.parent / f"{workdir.name}-{process}.log"


def losses(workdir: Path) -> dict[int, float]:
    """Loss of each step that was logged."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    return {line["step"]: line["loss"] for line in whole if "loss" in line}


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
