"""Files named after what made them, whole or not there."""

import os
from pathlib import Path

import pytest

from flashface_jax.curation.pipeline.collect import PersonSources, Source
from flashface_jax.curation.pipeline.steps import PHOTOS_MEASURED, Measure, Select
from flashface_jax.curation.pipeline.work import prepare, read_person, write_person, write_whole
from flashface_jax.curation.rules import Rules

FIRST = Source("/photos/1.jpg", "1", 10, 1000, "CC0", "a man")


def person_file(tmp_path, *sources, identity="Ann"):
    return write_person(tmp_path, PersonSources(identity, sources))


def names(tmp_path, *sources, version="v", models="/m", identity="Ann"):
    """File names of measuring and selecting a person."""
    path = person_file(tmp_path, *sources, identity=identity)
    measure = Measure(tmp_path / "measure", version, "cascade", Path(models))
    select = Select(tmp_path / "select", "s" + version[1:], Rules(), measure)
    return [chunk.target.name for step in (measure, select) for chunk in step.chunks(path)]


def test_a_person_comes_back_from_the_file(tmp_path):
    person = PersonSources("Cléo", (FIRST, Source("/photos/2.jpg", "2", 0, 0)))
    assert read_person(write_person(tmp_path, person)) == person


@pytest.mark.parametrize(
    "change",
    [{"photo": "/photos/x.jpg"}, {"size": 11}, {"modified": 1001}],
    ids=lambda change: next(iter(change)),
)
def test_another_file_gets_other_names_in_every_step(tmp_path, change):
    before = names(tmp_path, FIRST)
    after = names(tmp_path, Source(**{**vars(FIRST), **change}))
    assert len(before) == len(after) == 2 and not {*before} & {*after}


def test_what_is_said_of_a_photo_changes_no_work(tmp_path):
    before = names(tmp_path, FIRST)
    assert names(tmp_path, Source(**{**vars(FIRST), "caption": "b", "provenance": "c"})) == before


def test_another_source_id_is_selected_again_but_not_measured(tmp_path):
    before = names(tmp_path, FIRST)
    after = names(tmp_path, Source(**{**vars(FIRST), "source_id": "x"}))
    assert before[0] == after[0] and before[1] != after[1]


def test_other_settings_of_a_step_get_other_names_there_and_after_it(tmp_path):
    before = names(tmp_path, FIRST, version="v1")
    assert not {*before} & {*names(tmp_path, FIRST, version="v2")}
    path = person_file(tmp_path, FIRST)
    measure = Measure(tmp_path, "v1", "cascade", Path("/m"))
    one, other = (Select(tmp_path, v, Rules(), measure).chunks(path)[0] for v in ("a", "b"))
    assert one.inputs == other.inputs and one.target != other.target


def test_pieces_hold_every_photo_once(tmp_path):
    sources = [Source(f"/{i}", f"{i:04d}", 1, i) for i in range(2 * PHOTOS_MEASURED + 1)]
    path = person_file(tmp_path, *sources)
    chunks = Measure(tmp_path, "v", "cascade", Path("/m")).chunks(path)
    assert [len(chunk.photos) for chunk in chunks] == [PHOTOS_MEASURED, PHOTOS_MEASURED, 1]
    assert [i for chunk in chunks for i in chunk.photos] == list(range(len(sources)))


def test_a_file_that_cannot_be_put_in_its_place_leaves_the_old_one_and_no_draft(
    tmp_path, monkeypatch
):
    write_whole(tmp_path / "file", b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_other_settings_are_named_and_what_the_former_made_stays(tmp_path):
    folder = tmp_path / "measure"
    assert prepare(folder, {"a": 1, "b": 2}) == []
    write_whole(folder / "made.npz", b"1")
    (folder / ".draft-killed").write_bytes(b"half")
    assert prepare(folder, {"b": 2, "a": 1}) == []
    assert sorted(path.name for path in folder.iterdir()) == ["made.npz", "settings.json"]
    assert prepare(folder, {"a": 3, "b": 2, "c": 4}) == ["a", "c"]
    assert prepare(folder, {"a": 3, "b": 2, "c": 4}) == []
    assert (folder / "made.npz").read_bytes() == b"1"


def test_damaged_settings_count_as_none(tmp_path):
    prepare(tmp_path, {"a": 1})
    (tmp_path / "settings.json").write_text("{")
    assert prepare(tmp_path, {"a": 1}) == []
    assert prepare(tmp_path, {"a": 2}) == ["a"]
