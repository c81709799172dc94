"""Taking people and photos out of a dataset: it becomes what a build without them makes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from flashface_jax.common.lock import exclusive_lock
from flashface_jax.data import remove as command
from flashface_jax.data.building.removals import read_removals
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.removing import replacement, rewriting
from tests.manifests import built, people, records, write_lines

PEOPLE = (3, 2, 4, 1, 3, 2, 3, 2, 3, 2, 5, 3)
HELD_OUT = ("person01", "person08")
CHOSEN = {"reference_size": 24, "held_out_names": HELD_OUT}
LISTS = {
    "a person": "identity: person04",
    "a photo": "source_id: person02/1.jpg",
    "all photos of a person": "source_id: person09/0.jpg\nsource_id: person09/1.png",
    "the first and the last": "identity: person00\nsource_id: person11/2.png",
    "of both splits": "identity: person08\nidentity: person10\nsource_id: person01/0.png",
    "the whole validation": "identity: person01\nidentity: person08",
    "nearly all": "".join(f"identity: person{i:02d}\n" for i in (0, 1, 2, 3, 4, 5, 6, 7, 9, 11)),
    "one of several entries": "identity: Eve\n# a comment\nidentity: person04\nsource_id: x",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return write_lines(folder, people(folder, PEOPLE))


def build(source, out, **more):
    """A dataset of many files."""
    return built(source, out, **CHOSEN, shard_bytes=9000, **more)


@pytest.fixture
def dataset(source, tmp_path):
    return build(source, tmp_path / "data")


@pytest.fixture
def run(tmp_path, capsys):
    """The command, in process: its exit status, and what it says."""

    def called(listed, *arguments, data=tmp_path / "data"):
        (tmp_path / "list.txt").write_text(listed)
        words = [str(data), "--list", str(tmp_path / "list.txt"), *arguments]
        try:
            status = command.main(words)
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return called


def files(place):
    return {path.name: path.stat().st_ino for path in place.iterdir()}


def same(dataset, expected):
    assert records(dataset) == records(expected)
    for name in ("clusters", "contents", "outcomes", "form"):
        assert dataset.metadata[name] == expected.metadata[name], name
    assert dataset.splits == expected.splits


@pytest.mark.parametrize("name", LISTS)
def test_the_result_is_that_of_a_build_without_them(source, dataset, tmp_path, run, name):
    status, said, err = run(LISTS[name])
    assert status == 0, err
    removals = read_removals(tmp_path / "list.txt")
    held_out = [one for one in HELD_OUT if one not in removals.identities]
    fresh = {"held_out_names": tuple(held_out), "held_out": 0, "removals": removals}
    expected = built(source, tmp_path / "fresh", reference_size=24, **fresh)
    again = IdClusters(tmp_path / "data")
    same(again, expected)
    info = tfds.builder_from_directory(again.path).info
    for split in info.splits.values():
        assert split.num_bytes == sum(os.path.getsize(path) for path in split.filepaths)
        assert all(length > 0 for length in split.shard_lengths)
    assert f"wrote {again.path}" in said and sorted(os.listdir(tmp_path / "data")) == [
        ".id_clusters-build.lock",
        "id_clusters",
        "outcomes.jsonl",
    ]
    assert os.listdir(again.path.parent) == ["1.0.0"]


def test_files_without_removed_photos_are_kept_and_the_others_written_anew(dataset, run):
    before = {path: path.stat().st_ino for path in dataset.path.glob("*array_record*")}
    clusters = dataset.photos("train").clusters
    place = clusters.photos_of(clusters.identities.index("person05"))[0]
    splits, hit = tfds.builder_from_directory(dataset.path).info.splits, set()
    for kind in ("train", "train_references"):
        lengths = splits[kind].shard_lengths
        shard = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
        hit.add(f"id_clusters-{kind}.array_record-{shard:05d}-of-{len(lengths):05d}")
    assert run(f"source_id: {dataset.photos('train')[place].source_id}")[0] == 0
    after = {path: path.stat().st_ino for path in dataset.path.glob("*array_record*")}
    assert after.keys() == before.keys() and len(after) > 10
    assert {path.name for path in after if after[path] != before[path]} == hit


def test_what_is_removed_is_on_the_disk_no_more(dataset, tmp_path, run):
    photo = dataset.photos("train")[0]
    crop = dataset.references("train")[0]
    needles = [photo.jpeg[-200:], crop.jpeg[-200:], photo.source_id.encode()]
    data = tmp_path / "data/id_clusters"

    def found():
        texts = [path.read_bytes() for path in data.rglob("*") if path.is_file()]
        return [any(needle in text for text in texts) for needle in needles]

    assert found() == [True, True, True]
    assert run(f"identity: {photo.identity}")[0] == 0
    assert found() == [False, False, False]


def test_a_dataset_without_crops_and_one_copied_elsewhere_are_served(source, tmp_path, run):
    built(source, tmp_path / "data", held_out_names=HELD_OUT)
    place = (tmp_path / "data/id_clusters/1.0.0").rename(tmp_path / "mine")
    assert run("identity: person04", data=place)[0] == 0
    left = IdClusters(place)
    assert "person04" not in left.photos("train").clusters.identities
    assert left.references("train") is None


def test_links_are_copies_where_links_cannot_be(source, dataset, tmp_path, run, monkeypatch):
    def refused(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(rewriting.os, "link", refused)
    assert run("identity: person04")[0] == 0
    removals = read_removals(tmp_path / "list.txt")
    same(IdClusters(tmp_path / "data"), build(source, tmp_path / "fresh", removals=removals))


def test_what_went_what_is_left_and_what_was_named_in_vain_is_said(dataset, run):
    listed = "identity: person04\nsource_id: person05/0.progressive.jpg\nidentity: Eve\n"
    status, said, _ = run(listed)
    assert status == 0
    lines = said.splitlines()
    assert lines[0] == "removed 4 photos of 2 people"
    assert "       3 of 'person04'" in lines and "       1 of 'person05'" in lines
    assert "  identity: Eve" in lines
    assert any(line.startswith("validation: 5 photos of 2 people are left") for line in lines)
    assert any("with a single photo: they are not trained on" in line for line in lines)


def test_a_dry_run_changes_nothing(dataset, run):
    before = files(dataset.path)
    status, said, _ = run("identity: person04", "--dry-run")
    assert status == 0 and "would remove 3 photos of 1 people" in said and "wrote" not in said
    assert files(dataset.path) == before and os.listdir(dataset.path.parent) == ["1.0.0"]


def test_what_cannot_be_is_refused_in_a_line(dataset, tmp_path, run):
    before = files(dataset.path)
    (tmp_path / "empty").mkdir()
    everybody = "".join(f"identity: person{i:02d}\n" for i in range(12))
    trained = "".join(f"identity: person{i:02d}\n" for i in range(12) if i not in (1, 8))
    cases = [
        (("identity: Eve",), {}, "holds nothing that the list names"),
        (("",), {}, "holds nothing that the list names"),
        ((everybody,), {}, "names everybody"),
        ((trained,), {}, "names everybody of"),
        (("Ann",), {}, "list.txt, line 1: 'Ann' removes nothing"),
        (("identity: person04",), {"data": tmp_path / "empty"}, "holds no dataset id_clusters"),
        (("identity: person04",), {"data": tmp_path / "nowhere"}, "nowhere does not exist"),
        (("identity: person04",), {"data": tmp_path / "list.txt"}, "holds no dataset"),
    ]
    for arguments, places, said in cases:
        status, out, err = run(*arguments, **places)
        last = err.splitlines()[-1]
        assert status == 1 and out == "" and last.startswith("error: ") and said in last, err
    with exclusive_lock(tmp_path / "data"):
        assert "Another build or removal is at work in" in run("identity: person04")[2]
    staging = tmp_path / "data/.id_clusters-build.sqlite"
    staging.write_bytes(b"")
    assert "was stopped, and keeps photos: finish it first" in run("identity: person04")[2]
    staging.unlink()
    assert run("identity: person04", "--other")[0] == 2
    assert files(dataset.path) == before and os.listdir(dataset.path.parent) == ["1.0.0"]


def test_a_write_that_fails_leaves_the_dataset_as_it_was(dataset, run, monkeypatch):
    before = files(dataset.path)

    def full(path, records):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(rewriting, "write_shard", full)
    status, _, err = run("identity: person04")
    assert status == 1 and "No space left on device" in err
    assert files(dataset.path) == before and os.listdir(dataset.path.parent) == ["1.0.0"]


def test_ctrl_c_is_told_in_a_line_and_the_same_command_goes_on(dataset, run, monkeypatch):
    before = files(dataset.path)

    def stop(path, records):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rewriting, "write_shard", stop)
        status, _, err = run("identity: person04")
    assert status == 130
    assert err.endswith("\nerror: stopped; the dataset is whole, and the same command goes on.\n")
    assert files(dataset.path) == before and os.listdir(dataset.path.parent) == ["1.0.0"]
    assert run("identity: person04")[0] == 0


# Kills


class Killed(BaseException):
    pass


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed twice"])
@pytest.mark.parametrize("steps", range(8))
def test_a_stop_after_any_step_of_the_replacement_is_recovered_from(
    tmp_path, monkeypatch, steps, exchange
):
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_text("old")
    done = []

    def counted(function):
        def step(*arguments, **options):
            if len(done) == steps:
                raise Killed
            result = function(*arguments, **options)
            done.append(function.__name__)
            return result

        return step

    with monkeypatch.context() as patch:
        if not exchange:
            patch.setattr(replacement, "_exchange", lambda first, second: False)
        else:
            patch.setattr(replacement, "_exchange", counted(replacement._exchange))
        for owner, name in ((Path, "mkdir"), (Path, "rename"), (replacement.shutil, "rmtree")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            with replacement.replacing(place) as draft:
                (draft / "file").write_text("new")
        except Killed:
            pass
        else:
            assert len(done) < 8
    if exchange:
        assert (place / "file").exists()  # at every moment
    workshop = tmp_path / replacement.WORKSHOP
    if workshop.exists():
        replaced = replacement.recover(workshop)
        assert (place / "file").read_text() == ("new" if replaced else "old")
    assert (place / "file").read_text() in ("old", "new")
    assert os.listdir(tmp_path) == ["place"]
    if "rename" in done or "_exchange" in done:
        assert (place / "file").read_text() == "new"


MOMENTS = {
    "begun": lambda above: (above / ".replacement").exists(),
    "writing": lambda above: any(above.glob(".replacement/draft/*array_record*")),
    "almost written": lambda above: (above / ".replacement/draft/dataset_info.json").exists(),
    "replaced": lambda above: not (above / "1.0.0/marker").exists(),
}


def test_killed_removals_are_finished_by_the_same_command(source, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(LISTS["of both splits"])
    removals = read_removals(listed)
    kept_out = tuple(name for name in HELD_OUT if name not in removals.identities)
    old = build(source, tmp_path / "data")
    expected = built(
        source, tmp_path / "fresh", reference_size=24, held_out_names=kept_out, removals=removals
    )
    (old.path / "marker").write_text("a file of the user's")
    before, wanted = records(old), records(expected)
    random, killed = np.random.default_rng(0), 0
    words = ["-m", "flashface_jax.data.remove", tmp_path / "data", "--list", listed]
    for moment in [*MOMENTS, None]:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while moment and process.poll() is None and not MOMENTS[moment](old.path.parent):
            time.sleep(0.0005)
        if moment:
            time.sleep(random.uniform(0, 0.01))
            process.kill()
        _, err = process.communicate()
        killed += process.returncode == -signal.SIGKILL
        found = records(IdClusters(tmp_path / "data"))
        assert found in (before, wanted)
        if found == wanted and moment is None:
            assert process.returncode == 0 or b"holds nothing that the list names" in err
    assert killed >= 3
    same(IdClusters(tmp_path / "data"), expected)
    assert os.listdir(old.path.parent) == ["1.0.0"]
    assert (old.path / "marker").exists()
