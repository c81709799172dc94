"""The builder: every photo counted, the same contents however it runs, disjoint splits."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from flashface_jax.common.lock import exclusive_lock
from flashface_jax.data import build as command
from flashface_jax.data.building.arrangement import choose_splits
from flashface_jax.data.building.outcomes import DROPS
from flashface_jax.data.building.removals import plain
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.id_clusters import id_clusters_dataset_builder as builder_module
from flashface_jax.data.id_clusters.build import summary
from flashface_jax.data.id_clusters.id_clusters_dataset_builder import Builder
from flashface_jax.data.removing.remove import remove
from flashface_jax.faces.align import reference_face
from tests.manifests import (
    BOX,
    built,
    decoded,
    encoded,
    exif,
    line,
    options,
    outcomes,
    people,
    pixels,
    records,
    write_lines,
    write_photo,
)

PEOPLE = (3, 2, 4, 1, 3, 2, 3, 2, 3, 2, 5, 3)
CHOSEN = {"reference_size": 32, "held_out": 1, "longest_side": 80}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve people's photos and their manifest."""
    folder = tmp_path_factory.mktemp("source")
    return write_lines(folder, people(folder, PEOPLE))


@pytest.fixture(scope="module")
def dataset(source, tmp_path_factory):
    return built(source, tmp_path_factory.mktemp("data"), **CHOSEN)


def lines_of(source):
    return [json.loads(one) for one in (source / "manifest.jsonl").read_text().splitlines()]


# What becomes of every line


def adversarial(folder):
    """Lines with what is to become of each."""
    good = encoded(pixels(0))
    files = {
        "good.jpg": good,
        "gps.jpg": encoded(pixels(1), exif=exif()),
        "turned.png": encoded(pixels(2), "PNG", exif=exif(6)),
        "png.jpg": encoded(pixels(3), "PNG"),
        "text.jpg": b"hello",
        "empty.jpg": b"",
        "cut.jpg": encoded(pixels(4))[:-20],
        "cut.png": encoded(pixels(4), "PNG")[:2000],
        "trailing.jpg": encoded(pixels(5)) + b"behind",
        "a.heic": b"\0\0\0\x18ftypheic" + bytes(99),
        b"\xff\xe9.jpg": encoded(pixels(6)),
        "same.jpg": good,
    }
    for name, data in files.items():
        write_photo(folder, name, data)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "folder.jpg").mkdir()
    surrogates = json.dumps(line("?", "Ann")).encode().replace(b"?", b"\xff\xe9.jpg")
    unknown = json.dumps(line("?", "Ann")).encode().replace(b"?", b"\xfe.jpg")
    return [
        (line("good.jpg", "Ann", source_id="a", caption="Ann in red"), "kept"),
        (line("gps.jpg", "Ann"), "kept"),
        (line("turned.png", "Ann"), "kept"),
        (line("png.jpg", "Bob", landmarks=None), "kept"),
        (line("trailing.jpg", "Bob", landmarks=[[float("nan"), 1]] * 5), "kept"),
        (surrogates, "kept"),
        (unknown, "missing"),
        (b"", None),
        (b"   \r", None),
        (line("text.jpg", "Ann"), "unknown_format"),
        (line("empty.jpg", "Ann"), "empty"),
        (line("cut.jpg", "Ann"), "damaged"),
        (line("cut.png", "Ann"), "damaged"),
        (line("a.heic", "Ann"), "heic"),
        (line("pipe.jpg", "Ann"), "no_file"),
        (line("loop.jpg", "Ann"), "no_file"),
        (line("folder.jpg", "Ann"), "no_file"),
        (line("nowhere.jpg", "Ann"), "missing"),
        (line("gps.jpg", "Eve", source_id="a"), "duplicate_source_id"),
        (line("same.jpg", "Ann", source_id="b"), "same_picture"),
        (line("same.jpg", "Bob", source_id="c"), "kept"),
        (line("gps.jpg", "Gone", source_id="d"), "removed"),
        (line("gps.jpg", "Ann", source_id="gone/1"), "removed"),
        (line("gps.jpg", "Ann", source_id="e", face_box=[5, 5, 5, 9]), "face_box_empty"),
        (line("gps.jpg", "Ann", source_id="f", face_box=[900, 5, 950, 9]), "face_outside"),
        (line("gps.jpg", "Ann", source_id="g", face_box=[0, 1e300, 3, 4]), "malformed_line"),
        (line("gps.jpg", "Ann", source_id="h\ud800"), "malformed_line"),
        (line("\ud800.jpg", "Ann", source_id="i"), "malformed_line"),
        (b'{"photo": "gps.jpg"', "malformed_line"),
        (b"\xff\xfe\0", "malformed_line"),
        (json.dumps(line("gps.jpg", "Ann", source_id="j")).encode() + b"\r", "same_picture"),
    ]


def test_every_line_has_an_outcome_and_none_is_lost(tmp_path):
    cases = adversarial(tmp_path / "in")
    write_lines(tmp_path / "in", [one for one, _ in cases])
    (tmp_path / "list").write_text("identity: Gone\nsource_id: gone/1\n")
    removals = command.read_removals(tmp_path / "list")
    dataset = built(tmp_path / "in", tmp_path / "out", removals=removals, reference_size=16)
    expected = {number: outcome for number, (_, outcome) in enumerate(cases, 1) if outcome}
    assert dataset.metadata["outcomes"] == dict(sorted(Counter(expected.values()).items()))
    told = outcomes(tmp_path / "out")
    dropped = {one["line"]: one["outcome"] for one in told if one["outcome"] != "kept"}
    assert dropped == {n: outcome for n, outcome in expected.items() if outcome != "kept"}
    assert all(
        one["detail"] and one["outcome"] in DROPS for one in told if one["outcome"] != "kept"
    )
    kept = [one for split in records(dataset).values() for one in split]
    assert len(kept) == 2 * list(expected.values()).count("kept")
    notes = {one["line"]: one.get("notes", []) for one in told}
    assert notes[1] == ["shared_picture"] and notes[2] == ["no_caption", "stripped"]
    assert notes[3] == ["no_caption", "transcoded", "turned"]
    assert notes[5] == ["landmarks_unusable", "no_landmarks", "no_caption", "stripped"]
    assert "name_escaped" in notes[6]
    report = summary(dataset.path)
    assert f"{len(expected)} photos in the manifest, {len(kept) // 2} kept" in report
    for name, number in Counter(expected.values()).items():
        assert name == "kept" or f"{number} dropped: {name} ({DROPS[name]})" in report


def test_a_manifest_of_one_person_makes_a_dataset_without_validation(tmp_path):
    write_lines(tmp_path, people(tmp_path, [2]))
    assert built(tmp_path, tmp_path / "out").splits == ["train"]


def test_nothing_to_keep_is_said_with_the_reasons(tmp_path):
    write_lines(tmp_path, [line("nowhere.jpg", "Ann"), b"{"])
    with pytest.raises(
        ValueError, match=r"can be kept \(1 malformed_line, 1 missing\); line 1: .* does not exist"
    ):
        built(tmp_path, tmp_path / "out")
    write_photo(tmp_path, "nowhere.jpg", encoded(pixels(0)))
    assert len(built(tmp_path, tmp_path / "out").photos("train")) == 1
    write_lines(tmp_path / "none", [b"", b" "])
    with pytest.raises(ValueError, match="is empty: write a line a photo"):
        built(tmp_path / "none", tmp_path / "other")


def test_people_may_be_called_anything(tmp_path):
    names = [
        "Ann\nLee",
        " Ann",
        "Ann\0Lee",
        "Ann\0",
        "名前",
        "\N{GRINNING FACE}\uffff",
        "n" * 5000,
        "../..",
        "identity: x",
        "'; DROP TABLE photos; --",
    ]
    lines = [line(f"{i}.jpg", name, source_id=name + "!") for i, name in enumerate(names)]
    for i in range(len(names)):
        write_photo(tmp_path, f"{i}.jpg", encoded(pixels(i)))
    dataset = built(write_lines(tmp_path, lines), tmp_path / "out", held_out_names=("名前",))
    photos = [*dataset.photos("train"), *dataset.photos("validation")]
    assert [one.identity for one in photos[:-1]] == sorted(set(names) - {"名前"})
    assert {one.source_id for one in photos} == {name + "!" for name in names}
    (tmp_path / "list").write_text("identity: Ann Lee\nsource_id: Ann!\n")
    remove(dataset.path, command.read_removals(tmp_path / "list"))
    left = IdClusters(dataset.path).photos("train").clusters.identities
    assert left == sorted(set(names) - {"Ann\nLee", " Ann", "名前"})


# What the records say


def test_records_hold_what_the_manifest_says(source, dataset):
    said = {one["photo"]: one for one in lines_of(source)}
    found = records(dataset)
    photos = found["train"] + found["validation"]
    assert len(photos) == sum(PEOPLE)
    for record in photos:
        one = said.pop(record["source_id"])
        assert record["identity"] == one["identity"] and record["caption"] == one["caption"]
        assert record["provenance"] == "drawn"
        # Photos of 96x80 were reduced to 80x67.
        scale = [80 / 96, 67 / 80] * 2
        np.testing.assert_allclose(record["face_box"], np.array(BOX) * scale, rtol=1e-6)
        assert decoded(record["jpeg"]).shape == (67, 80, 3)
    assert not said


def test_photos_are_sorted_by_identity_and_source_and_found_by_the_offsets(dataset):
    for split in dataset.splits:
        photos = records(dataset)[split]
        order = [(one["identity"], one["source_id"]) for one in photos]
        assert order == sorted(order)
        clusters = dataset.photos(split).clusters
        for i, name in enumerate(clusters.identities):
            assert {photos[j]["identity"] for j in clusters.photos_of(i)} == {name}
        assert clusters.sizes.sum() == len(photos)


def test_crops_are_the_references_of_the_photos_at_the_same_places(dataset):
    differences = []
    for split in dataset.splits:
        photos, crops = dataset.photos(split), dataset.references(split)
        assert len(photos) == len(crops)
        for i in range(len(photos)):
            photo, crop = photos[i], crops[i]
            assert (photo.identity, photo.source_id) == (crop.identity, crop.source_id)
            again = reference_face(decoded(photo.jpeg), photo.face_box, photo.landmarks, 32)
            differences.append(decoded(crop.jpeg).astype(float) - again)
            assert crop.face_box.tolist() == [0, 0, 32, 32] and crop.landmarks is None
    # JPEG's error alone, of pictures that are worse for it than photos are.
    assert 10 * np.log10(255**2 / np.square(differences).mean()) > 36


# The same contents, however it is run


def test_order_shards_and_threads_change_nothing_of_the_contents(source, dataset, tmp_path):
    lines = lines_of(source)
    np.random.default_rng(0).shuffle(lines)
    (source / "shuffled.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    for i, changed in enumerate(({"shard_bytes": 5000}, {"threads": 7}, {})):
        again = built(source / "shuffled.jsonl", tmp_path / str(i), **{**CHOSEN, **changed})
        assert again.metadata["contents"] == dataset.metadata["contents"]
        assert records(again) == records(dataset)
    shards = list((tmp_path / "0").glob("*/*/*train.array*"))
    assert len(shards) > 3


@pytest.mark.parametrize(
    "changed", ["caption", "provenance", "source_id", "identity", "face_box", "landmarks", "pixel"]
)
def test_any_change_changes_the_contents(tmp_path, changed):
    picture = pixels(0).copy()
    lines = [line("a.png", "Ann", source_id="a"), line("b.jpg", "Ann", source_id="b")]
    write_photo(tmp_path, "a.png", encoded(picture, "PNG"))
    write_photo(tmp_path, "b.jpg", encoded(pixels(1)))
    before = built(write_lines(tmp_path, lines), tmp_path / "before").metadata["contents"]
    values = {"face_box": [30, 20, 62, 60.5], "landmarks": None}
    if changed == "pixel":
        picture[40, 40] += 99
        write_photo(tmp_path, "a.png", encoded(picture, "PNG"))
    else:
        lines[1][changed] = values.get(changed, "another")
    after = built(write_lines(tmp_path, lines), tmp_path / "after").metadata["contents"]
    assert before != after


# Splits


def test_splits_share_nobody_and_hold_out_a_tenth_at_most():
    rng = np.random.default_rng(0)
    counts = {f"p{i:03d}": int(rng.integers(1, 5)) for i in range(300)}
    able = [name for name, photos in counts.items() if photos >= 2]
    for wanted in (0, 1, 7, len(able) // 10, 200):
        splits = choose_splits(counts, wanted, (), 0)
        held = splits.get("validation", [])
        assert len(held) == min(wanted, len(able) // 10) and set(held) <= set(able)
        assert sorted(splits["train"] + held) == sorted(counts)
    assert choose_splits(counts, 20, (), 0) == choose_splits(counts, 20, (), 0)
    assert choose_splits(counts, 20, (), 0) != choose_splits(counts, 20, (), 1)


def test_a_person_in_two_spellings_is_in_one_split():
    spelt = [("José  %d", "José %d"), ("Jose\u0301 %d", " José %d\n")]
    counts = {way % i: 4 for i in range(30) for ways in spelt for way in ways}
    assert len(counts) == 120
    for names in ((), ("José 3",)):
        splits = choose_splits(counts, 12, names, 0)
        train, held_out = (set(map(plain, splits[split])) for split in ("train", "validation"))
        assert not train & held_out
        assert len(train | held_out) == 30
        assert len(held_out) >= (1 if names else 3)


def test_few_of_the_held_out_change_when_others_come():
    counts = {f"p{i:03d}": 2 for i in range(400)}
    before = set(choose_splits(counts, 20, (), 0)["validation"])
    after = set(
        choose_splits(counts | {f"q{i:02d}": 2 for i in range(40)}, 20, (), 0)["validation"]
    )
    assert len(before & after) >= 15  # of 20, where 10 % more people came


def test_named_people_are_held_out_and_unknown_ones_refused(source, tmp_path):
    dataset = built(source, tmp_path / "out", held_out_names=("person01", "person10"))
    assert dataset.photos("validation").clusters.identities == ["person01", "person10"]
    with pytest.raises(ValueError, match="No photo is kept of anybody to be held out, such as 'Ev"):
        built(source, tmp_path / "other", held_out_names=("Eve", "Zoe"))


def test_a_build_can_hold_out_whom_another_one_did(source, tmp_path):
    before = built(source, tmp_path / "before", held_out_names=("person01", "person10"))
    (tmp_path / "list").write_text("identity: person01\n")
    words = ["--source", source, "--out", tmp_path / "after", "--remove", tmp_path / "list"]
    assert command.main([*map(str, words), "--held-out-as", str(before.path)]) == 0
    splits = {
        split: set(IdClusters(tmp_path / "after").photos(split).clusters.identities)
        for split in before.splits
    }
    assert splits["validation"] == {"person10"}
    everybody = set().union(*(before.photos(one).clusters.identities for one in before.splits))
    assert splits["train"] == everybody - {"person01", "person10"}
    with pytest.raises(ValueError, match="No photo is left to train on"):
        choose_splits({"Ann": 2}, 1, ("Ann",), 0)


# TFDS' own ways


def test_tfds_reads_it_with_pictures_decoded(dataset):
    source = tfds.builder_from_directory(dataset.path).as_data_source("train")
    record = source[0]
    np.testing.assert_array_equal(record["image"], decoded(dataset.photos("train")[0].jpeg))
    assert record["has_landmarks"] and record["landmarks"].shape == (5, 2)


def test_tfds_builds_it_from_its_manual_directory(source, dataset, tmp_path):
    builder = Builder(options=options(**CHOSEN), data_dir=tmp_path)
    config = tfds.download.DownloadConfig(manual_dir=source, compute_stats="skip")
    builder.download_and_prepare(download_dir=tmp_path / "unused", download_config=config)
    assert dict(builder.info.metadata["contents"]) == dataset.metadata["contents"]
    assert not builder.staging_path.exists() and len(outcomes(tmp_path)) > 0


def test_the_dummy_data_of_tfds_own_test_are_whole(tmp_path):
    dummy = Path(builder_module.__file__).with_name("dummy_data")
    dataset = built(dummy, tmp_path, reference_size=32)
    assert dataset.metadata["outcomes"] == {"kept": 3} and dataset.metadata["notes"] == {}
    assert dataset.photos("train").clusters.sizes.tolist() == [2, 1]


def test_beam_builds_the_same(source, dataset, tmp_path):
    beam = pytest.importorskip("apache_beam")
    builder = Builder(source=source, options=options(**CHOSEN), data_dir=tmp_path)
    config = tfds.download.DownloadConfig(
        compute_stats="skip",
        beam_runner=beam.runners.create_runner("DirectRunner"),
        beam_options=beam.options.pipeline_options.PipelineOptions(
            ["--direct_running_mode=in_memory"]
        ),
    )
    builder.download_and_prepare(download_dir=tmp_path / "unused", download_config=config)
    again = IdClusters(tmp_path)
    assert again.metadata["contents"] == dataset.metadata["contents"]
    assert records(again) == records(dataset)


def test_nothing_imports_tensorflow(source, tmp_path):
    program = (
        "import sys; from flashface_jax.data.build import main; "
        f"code = main(['--source', {str(source)!r}, '--out', {str(tmp_path)!r}]); "
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules; sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert f"wrote {tmp_path}/id_clusters/1.0.0" in run.stdout


# The command


@pytest.fixture
def run(source, tmp_path, capsys):
    """The command, in process: its exit status, and what it says."""

    def called(*arguments, source=source, out=tmp_path / "out"):
        words = ["--source", str(source), "--out", str(out), *map(str, arguments)]
        try:
            status = command.main(words)
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return called


WRONG = {
    "held out": (["--held-out", -1], 1, "held_out is -1"),
    "seed": (["--seed", -1], 1, "seed is -1"),
    "threads": (["--threads", 0], 1, "threads is 0"),
    "shards": (["--shard-megabytes", 0], 1, "shard_bytes is 0"),
    "side": (["--longest-side", 10], 1, "longest_side is 10; choose from 64 to 8192"),
    "quality": (["--quality", 0], 1, "quality is 0; choose from 1 to 100"),
    "crops": (["--reference-size", 4000], 1, "reference_size is 4000"),
    "list": (["--remove", "nowhere.txt"], 1, "nowhere.txt cannot be read"),
    "word": (["--held-out", "many"], 2, "invalid int value: 'many'"),
    "option": (["--other"], 2, "unrecognized arguments: --other"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_refused_in_a_line(run, tmp_path, name):
    arguments, status, said = WRONG[name]
    found, out, err = run(*arguments)
    assert found == status and said in err and out == "" and "Traceback" not in err
    assert status == 2 or (err.startswith("error: ") and err.count("\n") == 1)
    assert not (tmp_path / "out").exists()


def test_wrong_places_are_refused_in_a_line(run, source, tmp_path):
    (tmp_path / "file").write_text("x")
    cases = [
        (dict(source=tmp_path), "holds no manifest.jsonl"),
        (dict(source=tmp_path / "nowhere"), "does not exist: name a manifest"),
        (dict(out=tmp_path / "file"), "file cannot be written to: Not a directory"),
        (dict(out=tmp_path / "file/below"), "cannot be written to"),
        (dict(out=Path("/proc/x")), "cannot be written to"),
        (dict(source=source / "person00/0.jpg"), "No photo of"),
    ]
    for places, said in cases:
        status, _, err = run(**places)
        last = err.splitlines()[-1]
        assert status == 1 and last.startswith("error: ") and said in last, err
        assert "Traceback" not in err


def test_a_dataset_that_exists_is_not_touched(run, tmp_path):
    assert run()[0] == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    status, _, err = run("--quality", 50)
    assert status == 1 and "1.0.0 exists already: remove it" in err
    lock = tmp_path / "out/.id_clusters-build.lock"
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert {**again, lock: 0} == {**files, lock: 0}


def test_a_second_build_into_a_directory_is_told_of_the_first(run, tmp_path):
    with exclusive_lock(tmp_path / "out"):
        status, _, err = run()
    assert status == 1 and "Another build or removal is at work in" in err
    assert run()[0] == 0


def test_removals_that_name_nothing_are_told(run, tmp_path):
    listed = tmp_path / "list"
    listed.write_text("identity: person03\nidentity: Eve\nsource_id: x\nsource_id: person02/0.png")
    status, said, _ = run("--remove", listed)
    assert status == 0 and "       1 dropped: removed" in said
    names = "3 entries of the list name nothing here\n  identity: Eve\n"
    assert names + "  source_id: person02/0.png\n  source_id: x\nwrote" in said
    listed.write_text("".join(f"identity: Eve {i:02d}\n" for i in range(25)))
    said = run("--remove", listed, out=tmp_path / "other")[1]
    assert "25 entries" in said and "  identity: Eve 19\n  and 5 more\n" in said
    assert "entries" not in run(out=tmp_path / "third")[1]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and '"face_box": [310, 120, 530, 410]' in said


def test_one_picture_of_two_people_is_noted_of_both(tmp_path):
    write_photo(tmp_path, "a.jpg", encoded(pixels(0)))
    lines = [line("a.jpg", name, source_id=name) for name in ("Ann", "Eve")]
    dataset = built(write_lines(tmp_path, lines), tmp_path / "out")
    assert dataset.metadata["notes"]["shared_picture"] == 2
    assert dataset.metadata["outcomes"] == {"kept": 2}
