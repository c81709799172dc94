"""Lines of a manifest: what they say, or what is wrong with them."""

import json
import os

import pytest

from flashface_jax.data.building.removals import read_removals
from flashface_jax.data.manifest import (
    PhotoEntry,
    find_manifest,
    parse_line,
    read_manifest,
    write_manifest,
)
from tests.manifests import BOX, LANDMARKS, line

GOOD = line("a.jpg", "Ann")


def text(**changed):
    return json.dumps({**GOOD, **changed})


def without(*names):
    return json.dumps({name: value for name, value in GOOD.items() if name not in names})


MALFORMED = {
    "no JSON": (
        "{",
        "the line is no JSON: Expecting property name enclosed in double quotes at character 2.",
    ),
    "a text": ('"a.jpg"', "the line is 'a.jpg'; it must be an object"),
    "a list": ("[1, 2]", "the line is [1, 2]; it must be an object"),
    "null": ("null", "the line is None"),
    "two objects": (text() + text(), "Extra data"),
    "deep": ("[" * 100_000, "recursion"),
    "long number": ('{"face_box": ' + "9" * 5000 + "}", "digits"),
    "no photo": (without("photo"), "the line lacks 'photo'"),
    "no box": (without("face_box"), "the line lacks 'face_box'"),
    "unknown key": (text(age=3), "the line has no 'age'"),
    "number as photo": (text(photo=3), "photo is 3; it must be text"),
    "empty photo": (text(photo=""), "photo is empty"),
    "empty identity": (text(identity=""), "identity is empty"),
    "null identity": (text(identity=None), "identity is None"),
    "list as caption": (text(caption=["a"]), "caption is ['a']; it must be text"),
    "short box": (text(face_box=[1, 2, 3]), "face_box is [1, 2, 3]"),
    "text box": (text(face_box="1,2,3,4"), "face_box is '1,2,3,4'"),
    "bool box": (text(face_box=[True, 2, 3, 4]), "face_box[0] is True"),
    "NaN box": (text(face_box=[float("nan"), 2, 3, 4]), "face_box[0] is nan"),
    "infinite box": (text(face_box=[1, 2, 3, float("inf")]), "face_box[3] is inf"),
    "huge whole box": (text(face_box=[1, 2, 3, 10**400]), "face_box[3] is 1000"),
    "far box": (text(face_box=[0, 0, 1e39, 4]), "is beyond all photos"),
    "four landmarks": (text(landmarks=LANDMARKS[:4]), "landmarks is"),
    "flat landmarks": (text(landmarks=[1.0] * 10), "landmarks is"),
    "lone surrogate in a caption": (text(caption="a\ud800"), "caption 'a\\ud800' is no text"),
    "lone surrogate as identity": (text(identity="\udfff"), "identity '\\udfff' is no text"),
    "lone surrogate in a source id": (text(source_id="\ud800"), "source_id"),
    "lone surrogate in a file name": (text(photo="\ud800.jpg", source_id="a"), "no file name"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_line_says_in_a_sentence_what_is_wrong(name):
    written, said = MALFORMED[name]
    parsed = parse_line(written, 7)
    assert parsed.entry is None and parsed.number == 7
    assert said in parsed.problem and parsed.problem.endswith(".")
    assert "\n" not in parsed.problem and len(parsed.problem) < 1100
    parsed.problem.encode()  # can be stored


def test_where_a_line_is_no_json_is_told():
    problem = parse_line('{"photo": "a.jpg",}', 7).problem
    assert problem.startswith("the line is no JSON: ") and problem.endswith(" at character 19.")


@pytest.mark.parametrize(
    "written",
    ["NaN", "Infinity", "null", "1e300", "1" + "0" * 400],
    ids=["NaN", "infinite", "null", "huge", "huge whole"],
)
def test_unusable_landmarks_are_left_out_and_told_of(written):
    landmarks = json.dumps(LANDMARKS).replace("38.0", written)
    parsed = parse_line(json.dumps(GOOD).replace(json.dumps(LANDMARKS), landmarks), 1)
    assert parsed.entry.landmarks is None and parsed.unusable_landmarks


def test_landmarks_that_are_absent_are_not_unusable():
    for written in (without("landmarks"), text(landmarks=None)):
        parsed = parse_line(written, 1)
        assert parsed.entry.landmarks is None and not parsed.unusable_landmarks


def test_a_line_needs_photo_identity_and_face_box_alone():
    parsed = parse_line(json.dumps({"photo": "a", "identity": "Ann", "face_box": [1, 2, 3, 4]}), 1)
    assert parsed.entry == PhotoEntry("a", "Ann", (1.0, 2.0, 3.0, 4.0), source_id="a")


def test_byte_order_mark_blank_lines_and_line_ends_of_any_system_are_read(tmp_path):
    path = tmp_path / "manifest.jsonl"
    lines = [text(photo=f"{i}.jpg").encode() for i in range(3)]
    path.write_bytes(b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n \n" + lines[1] + b"\n" + lines[2])
    read = list(read_manifest(path))
    assert [one.entry.photo for one in read] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [one.number for one in read] == [1, 4, 5]


def test_bytes_that_are_no_utf8_name_files_and_nothing_else(tmp_path):
    path = tmp_path / "manifest.jsonl"
    named = text(photo="?").encode().replace(b"?", b"\xff\xe9")
    called = text(identity="?").encode().replace(b"?", b"\xff")
    path.write_bytes(named + b"\n" + called)
    first, second = read_manifest(path)
    assert os.fsencode(first.entry.photo) == b"\xff\xe9"
    assert first.entry.source_id == r"\xff\xe9"
    assert second.entry is None and "identity '\\udcff' is no text in UTF-8" in second.problem


def test_what_is_written_is_read(tmp_path):
    entries = [
        PhotoEntry("a.jpg", "Ann", tuple(BOX), tuple(map(tuple, LANDMARKS)), "é\u2028", "1", "CC0"),
        PhotoEntry(os.fsdecode(b"\xff.jpg"), "日本", (-1.5, 2.0, 3e5, 4.0)),
    ]
    write_manifest(tmp_path / "manifest.jsonl", entries)
    assert [one.entry for one in read_manifest(tmp_path / "manifest.jsonl")] == entries
    assert find_manifest(tmp_path) == find_manifest(tmp_path / "manifest.jsonl")


def test_a_manifest_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"holds no manifest\.jsonl"):
        find_manifest(tmp_path)
    with pytest.raises(ValueError, match="does not exist: name a manifest"):
        find_manifest(tmp_path / "other")


def test_a_list_of_removals_is_read_as_people_type_it(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# asked to be left out\r\n\r\n  identity :  Jose\xcc\x81   Lee \r\n"
        b"source_id: a: b\n"
    )
    removals = read_removals(path)
    assert removals.name("Jos\xe9 Lee", "") and removals.name(" Jose\u0301 Lee", "")
    assert removals.name("", "a: b") and not removals.name("a: b", "Jos\xe9 Lee")


@pytest.mark.parametrize("written", ["Ann", "identity:", "name: Ann", ": Ann"])
def test_a_line_that_removes_nothing_is_refused_by_its_number(tmp_path, written):
    path = tmp_path / "list.txt"
    path.write_text(f"# list\n{written}\n")
    with pytest.raises(ValueError, match=r"list.txt, line 2: .* removes nothing: write 'identity"):
        read_removals(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="cannot be read"):
        read_removals(path)
    with pytest.raises(ValueError, match=r"cannot be read: .*: No such file"):
        read_removals(tmp_path / "other")
