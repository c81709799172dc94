"""Folders and lists of every shape become people and named outcomes."""

import json
import os

import pytest

from flashface_jax.curation.outcomes import DROPPED, Outcome
from flashface_jax.curation.pipeline.collect import PersonSources, collect, sidecar_caption


def touched(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def collected(photos):
    """Source ids by identity, and outcomes."""
    found = list(collect(photos))
    people = [one for one in found if isinstance(one, PersonSources)]
    outcomes = [one for one in found if isinstance(one, Outcome)]
    assert all(one.outcome in DROPPED for one in outcomes)
    ids = {one.identity: [source.source_id for source in one.sources] for one in people}
    assert len(ids) == len(people), "each identity comes once"
    return ids, [(os.path.basename(one.photo), one.identity, one.outcome) for one in outcomes]


def test_a_folder_is_a_person_with_photos_at_any_depth(tmp_path):
    touched(tmp_path, "Bo/1.jpg", "Ann/b/c/2.png", "Ann/1.jpg")
    ids, outcomes = collected(tmp_path)
    assert ids == {"Ann": ["Ann/1.jpg", "Ann/b/c/2.png"], "Bo": ["Bo/1.jpg"]}
    assert list(ids) == ["Ann", "Bo"] and outcomes == []


def test_hidden_files_and_folders_and_strays_are_named(tmp_path):
    touched(tmp_path, "Ann/1.jpg", "Ann/.x/2.jpg", "Ann/.3.jpg", ".git/4", "stray.jpg")
    ids, outcomes = collected(tmp_path)
    assert ids == {"Ann": ["Ann/1.jpg"]}
    assert sorted(outcomes) == [
        (".3.jpg", "Ann", "hidden"),
        (".git", "", "hidden"),
        (".x", "Ann", "hidden"),
        ("stray.jpg", "", "outside_folders"),
    ]


def test_links_that_lead_round_end(tmp_path):
    touched(tmp_path, "Ann/1.jpg", "Bo/2.jpg")
    (tmp_path / "Ann" / "up").symlink_to(tmp_path)
    (tmp_path / "Ann" / "self").symlink_to("self")
    (tmp_path / "Bo" / "ann").symlink_to(tmp_path / "Ann")
    ids, outcomes = collected(tmp_path)
    # A link to itself is a file that cannot be opened: measuring says so.
    assert ids == {"Ann": ["Ann/1.jpg", "Ann/self"], "Bo": ["Bo/2.jpg"]}
    assert outcomes == [("up", "Ann", "linked_again"), ("ann", "Bo", "linked_again")]


def test_names_that_are_no_utf8_are_named_in_files_and_in_folders(tmp_path):
    touched(tmp_path, "Ann/1.jpg")
    for name in (b"Ann/\xff.jpg", b"J\xe9r\xf4me/1.jpg"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
    ids, outcomes = collected(tmp_path)
    assert ids == {"Ann": ["Ann/1.jpg"]}
    assert outcomes == [
        ("\\xff.jpg", "Ann", "name_not_utf8"),
        ("1.jpg", "J\\xe9r\\xf4me", "name_not_utf8"),
    ]


def test_text_beside_a_photo_is_its_caption_and_other_text_is_a_file(tmp_path):
    touched(tmp_path, "Ann/1.jpg", "Ann/notes.txt")
    (tmp_path / "Ann/1.txt").write_bytes("\ufeffa woman,\r\n smiling \xff".encode("utf-8"))
    ids, _ = collected(tmp_path)
    assert ids == {"Ann": ["Ann/1.jpg", "Ann/notes.txt"]}
    assert sidecar_caption(tmp_path / "Ann/1.jpg") == "a woman, smiling ÿ"
    assert sidecar_caption(tmp_path / "Ann/2.jpg") == ""


def test_a_person_without_photos_is_a_person(tmp_path):
    (tmp_path / "Ann").mkdir()
    assert collected(tmp_path) == ({"Ann": []}, [])


def test_a_deep_folder_is_no_problem(tmp_path):
    deep = "/".join(["d"] * 600)
    touched(tmp_path, f"Ann/{deep}/1.jpg")
    assert collected(tmp_path)[0] == {"Ann": [f"Ann/{deep}/1.jpg"]}


def listed(tmp_path, *lines):
    path = tmp_path / "list.jsonl"
    rows = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


def test_a_list_names_photos_relative_to_itself_in_any_order(tmp_path):
    touched(tmp_path, "a/1.jpg", "a/2.jpg")
    path = listed(
        tmp_path,
        {"photo": "a/2.jpg", "identity": "Bo", "caption": "b", "provenance": "CC0"},
        b"",
        {"photo": "a/1.jpg", "identity": "Ann", "source_id": "z"},
        {"photo": str(tmp_path / "a/1.jpg"), "identity": "Bo", "source_id": "c"},
    )
    people = list(collect(path))
    assert [one.identity for one in people] == ["Ann", "Bo"]
    ((ann,), (second, third)) = (one.sources for one in people)
    assert (ann.source_id, ann.photo) == ("z", str(tmp_path / "a/1.jpg"))
    assert (second.source_id, second.caption, second.provenance) == ("a/2.jpg", "b", "CC0")
    assert (third.source_id, third.photo, third.size) == ("c", str(tmp_path / "a/1.jpg"), 1)


def test_lines_that_will_not_do_are_named_and_the_rest_is_taken(tmp_path):
    path = listed(
        tmp_path,
        {"photo": "1.jpg", "identity": "Ann"},
        b"{not json",
        {"photo": "2.jpg"},
        {"photo": "", "identity": "Ann"},
        {"photo": "3.jpg", "identity": "Ann", "face": 1},
        b"[" * 5000,
        {"photo": "1.jpg", "identity": "Bo"},
        b'{"photo": "caf\xe9.jpg", "identity": "Ann"}',
        {"photo": "\udcff.jpg", "identity": "Ann"},
        {"photo": "4\0.jpg", "identity": "Ann"},
        {"photo": "5.jpg", "identity": "Ann", "caption": "a \ud800"},
        {"photo": "6.jpg", "identity": "Ann", "provenance": "\udfff"},
    )
    ids, outcomes = collected(path)
    assert ids == {"Ann": ["1.jpg", "4\0.jpg"]}
    assert [name for _, _, name in outcomes] == [
        *["bad_line"] * 5,
        "duplicate_source_id",
        *["name_not_utf8"] * 2,
        *["bad_line"] * 2,
    ]
    assert outcomes[0][0] == "list.jsonl, line 2"
    assert outcomes[5][:2] == ("1.jpg", "Bo")


def test_a_last_line_without_an_end_is_read(tmp_path):
    touched(tmp_path, "1.jpg")
    path = tmp_path / "list.jsonl"
    path.write_text('{"photo": "1.jpg", "identity": "Ann"}')
    assert collected(path)[0] == {"Ann": ["1.jpg"]}


def test_a_missing_place_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist: name a folder"):
        collect(tmp_path / "nowhere")
