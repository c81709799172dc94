"""Trackers: what each keeps, and that it goes on cleanly after a run that was cut off."""

import csv
import importlib.machinery
import importlib.util
import json
import struct
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flashface_jax.training.monitoring.metrics import MetricsWriter
from flashface_jax.training.monitoring.observer import logged
from flashface_jax.training.monitoring.trackers import registry
from flashface_jax.training.run.loop import train
from tests.small import with_changes


class FakeRun:
    def __init__(self, **options):
        self.options, self.logged, self.metrics, self.finished = options, [], [], False

    def define_metric(self, name, **options):
        self.metrics.append((name, options))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


class RefusedError(Exception):
    """What wandb.Error is."""


@pytest.fixture
def wandb(monkeypatch):
    """A module that stands in for wandb, and keeps the runs that were begun."""
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.runs, module.Error, module.Image = [], RefusedError, lambda image: ("image", image.size)

    def init(**options):
        module.runs.append(FakeRun(**options))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def log(workdir, name, after, *steps, **further):
    """Log steps by one tracker, of a run that goes on after a step."""
    writer = MetricsWriter(workdir, after, (name,))
    for step in steps:
        writer.scalars(step, {"loss": 1 / step, **further})
    writer.close()


def rows(workdir):
    with (workdir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(workdir):
    """All events of TensorBoard's files, in the order in which they were written."""
    found = []
    for path in sorted((workdir / "tensorboard").glob("events*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_lines_of_later_steps_are_dropped(tmp_path):
    log(tmp_path, "jsonl", 0, 1, 2, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    log(tmp_path, "jsonl", 2, 3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_rows_of_later_steps_are_dropped(tmp_path):
    log(tmp_path, "csv", 0, 1, 2, 3)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,0.")  # cut off: its step is not to be believed
    log(tmp_path, "csv", 2, 3)
    assert [(row["step"], float(row["loss"])) for row in rows(tmp_path)] == [
        ("1", 1.0),
        ("2", 0.5),
        ("3", 1 / 3),
    ]


def test_columns_may_come_later_and_earlier_rows_stay(tmp_path):
    log(tmp_path, "csv", 0, 1)
    log(tmp_path, "csv", 1, 2, similarity=40.5)
    log(tmp_path, "csv", 2, 3)
    assert [(row["loss"], row["similarity"]) for row in rows(tmp_path)] == [
        ("1.0", ""),
        ("0.5", "40.5"),
        (str(1 / 3), ""),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"], "no draft is left"


def test_tensorboard_is_told_which_events_to_forget(tmp_path):
    log(tmp_path, "tensorboard", 2, 3)
    begun = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    values = [(e.step, v.tag) for e in events(tmp_path) for v in e.summary.value]
    assert begun == [3], "TensorBoard drops what it read before of this step and later ones"
    assert values == [(3, "loss")]


def test_wandb_goes_on_under_the_id_that_the_directory_keeps(tmp_path, wandb):
    (tmp_path / "train.json").write_text('{"seed": 7}')
    for after in (0, 2):
        log(tmp_path, "wandb", after, after + 1, after + 2)
    first, again = (run.options for run in wandb.runs)
    assert first == again and len(first["id"]) == 16 and first["resume"] == "allow"
    assert first["config"] == {"seed": 7} and first["dir"] == str(tmp_path)
    assert wandb.runs[1].logged == [{"step": 3, "loss": 1 / 3}, {"step": 4, "loss": 1 / 4}]
    # Its own count of steps would refuse the steps that are taken again.
    assert all(run.metrics == [("*", {"step_metric": "step"})] for run in wandb.runs)
    assert all(run.finished for run in wandb.runs)


def test_who_is_not_logged_in_at_wandb_is_told_so(tmp_path, wandb):
    def init(**_):
        raise RefusedError("no API key")

    wandb.init = init
    with pytest.raises(ValueError, match=r"opens no run \(no API key\): .* WANDB_MODE=offline"):
        MetricsWriter(tmp_path, 0, ("wandb",))


@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="needs the extra wandb, which is optional"
)
def test_wandb_itself_takes_runs_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for after in (0, 2):
        log(tmp_path, "wandb", after, after + 1, after + 2)
    (identity,) = (tmp_path / "wandb_id.txt").read_text().split()
    assert len(list(tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb"))) >= 1


def test_a_picture_is_saved_once_and_shown_to_every_tracker(tmp_path, wandb):
    writer = MetricsWriter(tmp_path, 0, ("jsonl", "csv", "tensorboard", "wandb"))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    path = writer.picture(5, "held_out", Image.fromarray(pixels))
    writer.close()
    assert path == tmp_path / "samples/held_out_0000005.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    assert list(tmp_path.rglob("*.png")) == [path]
    assert wandb.runs[0].logged == [{"step": 5, "held_out": ("image", (4, 6))}]
    shown = [(e.step, v.tag) for e in events(tmp_path) for v in e.summary.value]
    assert shown == [(5, "held_out")]


def test_every_number_of_the_whole_batch_is_logged():
    metrics = {
        "loss": jnp.float32(1),
        "loss/mine": jnp.float32(2),
        "faces": jnp.int32(3),
        "healthy": jnp.bool_(True),
        "sample_loss": jnp.ones(4),
    }
    assert logged(metrics).keys() == {"loss", "loss/mine", "faces"}


def test_a_fork_registers_its_own(tmp_path, monkeypatch):
    class Printed:
        def __init__(self, workdir, step):
            self.lines = lines

        def scalars(self, step, values):
            self.lines.append((step, dict(values)))

        def picture(self, step, name, image):
            self.lines.append((step, name))

        def close(self):
            self.lines.append("closed")

    lines = []
    monkeypatch.setitem(registry.TRACKERS, "printed", Printed)
    registry.check_trackers(("printed",))
    log(tmp_path, "printed", 0, 1)
    assert lines == [(1, {"loss": 1.0}), "closed"]


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        (("jsonl", "tb"), r"trackers has 'tb': choose among jsonl, csv, tensorboard, wandb"),
        (("csv", "csv"), r"trackers has 'csv' more than once"),
    ],
)
def test_trackers_that_cannot_be_are_refused_before_a_run_begins(tmp_path, trackers, message):
    with pytest.raises(ValueError, match=message):
        train(with_changes(trackers=trackers), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'flashface-jax\[wandb\]'"):
        registry.check_trackers(("jsonl", "wandb"))
