"""A build that is killed, stopped or fails: the next one goes on, nothing half-written stays."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flashface_jax.data import build as command
from flashface_jax.data.building import preparation
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.id_clusters import id_clusters_dataset_builder as builder_module
from flashface_jax.data.id_clusters.id_clusters_dataset_builder import Builder
from tests.manifests import (
    built,
    encoded,
    line,
    outcomes,
    people,
    pixels,
    records,
    write_lines,
    write_photo,
)

WORDS = ("--held-out", "2", "--reference-size", "24", "--threads", "2")
CHOSEN = {"held_out": 2, "reference_size": 24}
STAGING = ".id_clusters-build.sqlite"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twenty people's photos, and some lines of which nothing is kept."""
    folder = tmp_path_factory.mktemp("source")
    lines = people(folder, [9] * 20)
    write_photo(folder, "cut.jpg", encoded(pixels(0))[:-5])
    lines[50:50] = [line("nowhere.jpg", "Ann"), b"{", line("cut.jpg", "Ann")]
    return write_lines(folder, lines)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """The dataset of a build that nothing stopped, and its outcomes."""
    out = tmp_path_factory.mktemp("undisturbed")
    return built(source, out, **CHOSEN), outcomes(out)


# Files that a build may write no longer than so many bytes, set in the process itself: JAX, which
# other tests load, minds a fork.
LIMITED = """
import resource, runpy, sys
most = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
runpy.run_module("flashface_jax.data.build", run_name="__main__")
"""


def start(source, out, limit=None):
    command = ["-m", "flashface_jax.data.build"] if limit is None else ["-c", LIMITED, limit]
    words = [*command, "--source", source, "--out", out, *WORDS]
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left(out):
    """What a build has beside the dataset."""
    found = [path.name for path in out.glob(f"{STAGING}*")]
    return found + [path.name for path in out.rglob("*incomplete*")]


MOMENTS = {
    "begun": lambda out: (out / STAGING).exists(),
    "examining": lambda out: (out / f"{STAGING}-wal").exists(),
    "writing": lambda out: any(out.glob("id_clusters/incomplete.*/*array_record*")),
    "writing crops": lambda out: any(out.glob("id_clusters/incomplete.*/*_references.*")),
}


def test_killed_builds_are_finished_by_the_same_command(source, undisturbed, tmp_path):
    random, killed, seen = np.random.default_rng(0), 0, set()
    for moment in [*MOMENTS, *MOMENTS]:
        process = start(source, tmp_path)
        while process.poll() is None and not MOMENTS[moment](tmp_path):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.03))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        seen |= {name.split("-")[0].split(".")[0] for name in left(tmp_path)}
        if process.returncode == 0:
            break
        if (tmp_path / "id_clusters/1.0.0").exists():
            assert records(IdClusters(tmp_path)) == records(undisturbed[0])
    assert killed >= 4 and "incomplete" in seen
    out, err = start(source, tmp_path).communicate()
    assert "wrote" in out or "exists already" in err, err
    again, told = undisturbed
    assert IdClusters(tmp_path).metadata == again.metadata
    assert records(IdClusters(tmp_path)) == records(again)
    assert outcomes(tmp_path) == told
    assert left(tmp_path) == []


def test_two_builds_at_once_do_not_meet(source, undisturbed, tmp_path, capsys):
    process = start(source, tmp_path)
    while not (tmp_path / STAGING).exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    try:
        assert command.main(["--source", str(source), "--out", str(tmp_path), *WORDS]) == 1
        assert "Another build or removal is at work in" in capsys.readouterr().err
    finally:
        process.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode == 0
    assert IdClusters(tmp_path).metadata == undisturbed[0].metadata


def stop_after(monkeypatch, photos):
    """Make a build end while it examines a photo, as if it was stopped there."""
    looked, examine = [], preparation.examine

    def stopping(folder, entry, form):
        looked.append(entry)
        if len(looked) > photos:
            raise KeyboardInterrupt
        return examine(folder, entry, form)

    monkeypatch.setattr(preparation, "examine", stopping)
    return looked


def stopped(source, out, monkeypatch, photos=150):
    with monkeypatch.context() as patch:
        stop_after(patch, photos)
        with pytest.raises(KeyboardInterrupt):
            built(source, out, **CHOSEN)
    assert (out / STAGING).exists()


def test_what_was_examined_before_a_stop_is_not_examined_again(
    source, undisturbed, tmp_path, monkeypatch
):
    stopped(source, tmp_path, monkeypatch)
    looked = stop_after(monkeypatch, 10**6)
    again = built(source, tmp_path, **CHOSEN)
    assert 0 < len(looked) < 100  # of 182
    assert again.metadata == undisturbed[0].metadata


def test_ctrl_c_is_told_in_a_line_and_the_same_command_goes_on(
    source, undisturbed, tmp_path, monkeypatch, capsys
):
    words = ["--source", str(source), "--out", str(tmp_path), *WORDS]
    with monkeypatch.context() as patch:
        stop_after(patch, 150)
        assert command.main(words) == 130
    said = capsys.readouterr().err
    assert said.endswith("\nerror: stopped; the same command goes on from here.\n")
    assert "Traceback" not in said
    assert command.main(words) == 0
    assert IdClusters(tmp_path).metadata == undisturbed[0].metadata
    said = capsys.readouterr().err
    assert "examining photos" in said and "reading the manifest" not in said


def test_another_manifest_or_other_options_begin_anew(source, tmp_path, monkeypatch):
    lines = [json.loads(one) for one in (source / "manifest.jsonl").read_text().splitlines()[:50]]
    other = source / "other.jsonl"
    write = lambda: other.write_text("".join(json.dumps(one) + "\n" for one in lines))  # noqa: E731
    write()
    stopped(other, tmp_path / "a", monkeypatch, 20)
    lines[0]["caption"] = "another"
    write()
    expected = built(other, tmp_path / "fresh", **CHOSEN)
    assert built(other, tmp_path / "a", **CHOSEN).metadata == expected.metadata
    stopped(other, tmp_path / "b", monkeypatch, 20)
    smaller = built(other, tmp_path / "b", **CHOSEN, longest_side=64)
    assert smaller.metadata == built(other, tmp_path / "c", **CHOSEN, longest_side=64).metadata


def test_photos_that_could_not_be_read_before_a_stop_are_looked_at_again(
    source, undisturbed, tmp_path, monkeypatch
):
    hidden = source / "person00"
    hidden.rename(source / "away")
    try:
        stopped(source, tmp_path, monkeypatch)
    finally:
        (source / "away").rename(hidden)
    assert built(source, tmp_path, **CHOSEN).metadata == undisturbed[0].metadata


def test_a_build_stopped_at_its_very_end_is_finished_by_itself_alone(
    source, undisturbed, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Builder, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            built(source, tmp_path, **CHOSEN)
    assert (tmp_path / "id_clusters/1.0.0").exists() and left(tmp_path)
    for changed in ({"held_out": 1}, {"longest_side": 64}):
        with pytest.raises(ValueError, match="exists already"):
            built(source, tmp_path, **{**CHOSEN, **changed})
    assert built(source, tmp_path, **CHOSEN).metadata == undisturbed[0].metadata
    assert outcomes(tmp_path) == undisturbed[1] and left(tmp_path) == []


def test_a_photo_that_changes_while_it_is_built_ends_the_build(tmp_path, monkeypatch):
    folder = write_lines(tmp_path / "in", people(tmp_path / "in", [2, 2]))
    photo = tmp_path / "in/person00/0.jpg"
    was, prepare = photo.read_bytes(), builder_module.prepare
    for changed in (encoded(pixels(9)), was[:-9], None):

        def meanwhile(*arguments, changed=changed):
            prepare(*arguments)
            photo.unlink() if changed is None else photo.write_bytes(changed)

        with monkeypatch.context() as patch:
            patch.setattr(builder_module, "prepare", meanwhile)
            with pytest.raises(ValueError, match=r"0\.jpg changed while the dataset was built"):
                built(folder, tmp_path / "out")
        assert not list((tmp_path / "out/id_clusters").iterdir())
        assert not (tmp_path / "out/outcomes.jsonl").exists()
        photo.write_bytes(was)
    assert len(built(folder, tmp_path / "out").photos("train")) == 4


@pytest.mark.parametrize("damage", [b"no database", b"", b"SQLite format 3\0" + bytes(99)])
def test_a_damaged_staging_file_is_made_anew(tmp_path, damage):
    folder = write_lines(tmp_path / "in", people(tmp_path / "in", [2, 2]))
    (tmp_path / STAGING).write_bytes(damage)
    assert len(built(folder, tmp_path).photos("train")) == 4


@pytest.mark.parametrize("most", [20_000, 100_000], ids=["staging", "shards"])
def test_a_full_disk_is_told_in_a_line(tmp_path, most):
    folder = write_lines(tmp_path / "in", people(tmp_path / "in", [1] * 9))
    process = start(folder, tmp_path / "out", limit=most)
    _, err = process.communicate()
    last = err.splitlines()[-1]
    assert process.returncode == 1 and last.startswith("error: "), err
    assert "Traceback" not in err
    assert not (tmp_path / "out/id_clusters/1.0.0").exists()
    assert len(built(folder, tmp_path / "out").photos("train")) == 9
