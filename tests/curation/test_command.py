"""The whole command on folders with a known right answer, killed and gone on, and in parallel."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("apache_beam", reason="pip install 'flashface-jax[curation]'")
pytest.importorskip("sklearn", reason="pip install 'flashface-jax[curation]'")
pytest.importorskip("insightface", reason="pip install 'flashface-jax[faces]'")
pytest.importorskip("onnx", reason="pip install onnx")

from flashface_jax.curation import captions
from flashface_jax.curation.command import main
from flashface_jax.curation.outcomes import DROPPED
from flashface_jax.data.build import main as build
from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.loading.transforms import decode
from flashface_jax.data.manifest import read_manifest
from flashface_jax.faces.files import read_photo
from tests.curation.photo_world import BOX, make_world

ROOT = Path(__file__).parents[2]
RESULTS = ("manifest.jsonl", "outcomes.jsonl", "report.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def arguments(world, out, *more):
    named = {"--photos": world.photos, "--models": world.pack, "--out": out, "--min-face": 90}
    return [*(str(part) for pair in named.items() for part in pair), *map(str, more)]


@pytest.fixture(scope="module")
def out(world, tmp_path_factory):
    """The results of an undisturbed run."""
    folder = tmp_path_factory.mktemp("out") / "curated"
    assert main(arguments(world, folder)) == 0
    return folder


def results(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def entries(folder):
    lines = list(read_manifest(folder / "manifest.jsonl"))
    assert all(line.entry for line in lines)
    return [line.entry for line in lines]


def outcomes(folder):
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]


def test_every_photo_and_file_becomes_what_it_must(world, out):
    found = {outcome["photo"]: outcome["outcome"] for outcome in outcomes(out)}
    for entry in entries(out):
        photo = str((out / entry.photo).resolve())
        assert photo not in found, "kept and dropped"
        found[photo] = "kept"
    assert found == world.expected


def test_the_manifest_is_sorted_and_its_boxes_lie_on_the_faces(world, out):
    found = entries(out)
    keys = [(entry.identity, entry.source_id) for entry in found]
    assert keys == sorted(set(keys))
    assert {entry.identity for entry in found} == {"Ann Lee", "Bo", "Cléo"}
    for entry in found:
        x1, y1, x2, y2 = entry.face_box
        assert (x2 - x1, y2 - y1) == pytest.approx(BOX, abs=0.02)
        image = read_photo(out / entry.photo, longest_side=None)
        mark = image[round(y1) + 48 + 8, round(x1) + 32 + 8]
        assert mark[0] > 230 and mark[1:].max() < 40, "the box is not about the mark"
        assert entry.landmarks is not None


def test_the_report_adds_up_and_names_the_dropped_identities(world, out):
    report = json.loads((out / "report.json").read_text())
    photos, steps = report["photos"], report["steps"]
    assert photos["in"] == len(world.expected) == photos["kept"] + sum(photos["dropped"].values())
    for name in DROPPED:
        assert photos["dropped"].get(name, 0) == list(world.expected.values()).count(name), name
    passed = photos["in"]
    for step in ("collect", "measure", "select", "caption"):
        assert steps[step]["in"] == passed
        passed = steps[step]["out"]
    assert passed == photos["kept"]
    dropped = {one["identity"]: one for one in report["dropped_identities"]}
    assert {name: one["outcome"] for name, one in dropped.items()} == {
        "Two": "ambiguous_identity",
        "Nobody": "no_dense_cluster",
        "Once": "too_few_photos",
        "Empty": "no_faces",
    }
    assert dropped["Two"]["cluster_sizes"] == [5, 5]
    assert report["identities"]["in"] == 7 and report["identities"]["kept"] == 3


def test_a_dataset_is_built_of_what_was_kept(out, tmp_path):
    assert build(["--source", str(out), "--out", str(tmp_path), "--reference-size", "64"]) == 0
    photos = IdClusters(tmp_path).photos("train")
    kept = entries(out)
    assert [(photo.identity, photo.source_id) for photo in photos] == [
        (entry.identity, entry.source_id) for entry in kept
    ]
    for photo in photos:
        picture = decode(photo)
        x1, y1, *_ = photo.face_box
        mark = picture.pixels[round(float(y1)) + 48 + 8, round(float(x1)) + 32 + 8]
        assert mark[0] > 230 and mark[1:].max() < 60, "the stored box is not about the mark"


def test_a_second_run_does_nothing_and_says_where_the_results_are(world, out, capsys):
    before = results(out)
    made = {path: path.stat().st_mtime_ns for path in (out / "work").rglob("*.*") if path.is_file()}
    assert main(arguments(world, out)) == 0
    said = capsys.readouterr()
    assert f"flashface data build --source {out}" in said.out
    assert str(out / "manifest.jsonl") in said.out and "photos kept" in said.out
    assert results(out) == before
    for path, modified in made.items():
        assert path.name == "collected.jsonl" or path.stat().st_mtime_ns == modified


def files(folder, step):
    place = folder / "work" / step
    if not place.is_dir():
        return 0
    return sum(path.suffix in (".npz", ".json") for path in place.glob("[!.s]*"))


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(world, out, tmp_path):
    folder = tmp_path / "curated"
    command = [sys.executable, "-m", "flashface_jax.curation", *arguments(world, folder)]
    moments = {
        "as soon as there is a folder": folder.exists,
        "in the midst of measuring": lambda: files(folder, "measure") >= 2,
        "in the midst of selecting": lambda: files(folder, "select") >= 1,
    }
    for moment, reached in moments.items():
        run = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while run.poll() is None and not reached():
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, f"it ended before it could be killed {moment}"
        assert not (folder / "manifest.jsonl").exists()
    assert main(arguments(world, folder)) == 0
    expected, found = results(out), results(folder)
    assert relocated(found, folder) == relocated(expected, out)
    assert not list(folder.rglob(".*")), "drafts are left"


def test_a_run_that_is_interrupted_says_that_it_goes_on(world, tmp_path):
    folder = tmp_path / "curated"
    command = [sys.executable, "-m", "flashface_jax.curation", *arguments(world, folder)]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while run.poll() is None and files(folder, "measure") < 1:
        time.sleep(0.002)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    assert run.returncode == 130
    assert said.endswith("error: stopped; the same command goes on from here.\n")
    assert "Traceback" not in said


def relocated(found, folder):
    """Results without what depends on where they lie: photos are relative to the folder."""
    up = os.path.relpath("/", folder.resolve()).encode()
    return {name: data.replace(up, b"ROOT") for name, data in found.items()}


def test_other_rules_select_again_without_measuring_and_say_so(world, tmp_path, capsys):
    folder = tmp_path / "curated"
    assert main(arguments(world, folder)) == 0
    work = folder / "work"
    measured = {p: p.stat().st_mtime_ns for p in (work / "measure").iterdir()}
    assert main(arguments(world, folder, "--min-photos", 9)) == 0
    said = capsys.readouterr().out
    assert "select: done anew, because of other settings: min_photos" in said
    assert "measure: done anew" not in said
    assert measured == {p: p.stat().st_mtime_ns for p in (work / "measure").iterdir()}
    assert entries(folder) == [], "everybody has eight photos"
    # To go back costs nothing.
    selected = files(folder, "select")
    assert main(arguments(world, folder)) == 0
    assert files(folder, "select") == selected and len(entries(folder)) == 24


def test_a_photo_that_is_added_changes_its_person_only(world, tmp_path):
    photos = tmp_path / "photos"
    for name in ("Bo", "Cléo"):
        (photos / name).mkdir(parents=True)
        for path in (world.photos / name).glob("*.*"):
            (photos / name / path.name).write_bytes(path.read_bytes())
    folder = tmp_path / "curated"
    both = [*arguments(world, folder), "--photos", str(photos)]
    assert main(both) == 0
    first = {path for path in (folder / "work" / "measure").iterdir()}
    (photos / "Bo" / "new.jpg").write_bytes(b"nothing")
    assert main(both) == 0
    assert len({path for path in (folder / "work" / "measure").iterdir()} - first) == 1
    assert [o["outcome"] for o in outcomes(folder)] == ["unreadable"]
    assert len(entries(folder)) == 16


def test_captions_come_from_the_list_or_from_text_beside_the_photos(world, tmp_path):
    photos = sorted((world.photos / "Bo").glob("0*.*"))
    lines = [{"photo": str(photo), "identity": "Bo", "source_id": photo.name} for photo in photos]
    lines[0] |= {"caption": "a man in red", "provenance": "CC0"}
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    photos[1].with_suffix(".txt").write_text("a man\nin blue")
    try:
        more = ("--photos", tmp_path / "list.jsonl")
        assert main([*arguments(world, tmp_path / "out"), *map(str, more)]) == 0
    finally:
        photos[1].with_suffix(".txt").unlink()
    found = entries(tmp_path / "out")
    assert [entry.caption for entry in found] == ["a man in red", "a man in blue", *[""] * 6]
    assert found[0].provenance == "CC0" and found[0].source_id == photos[0].name


def test_a_model_writes_the_captions_once(world, tmp_path, capsys):
    pytest.importorskip("torch")
    from tests.curation.tiny_models import save_llava  # noqa: PLC0415

    save_llava(tmp_path / "vlm")
    more = ("--captions", tmp_path / "vlm", "--caption-tokens", 5, "--caption-batch", 3)
    assert main(arguments(world, tmp_path / "out", *more)) == 0
    found = entries(tmp_path / "out")
    captioner = captions.VisionLanguageCaptioner(str(tmp_path / "vlm"), 5, 1)
    for entry in found[::5]:
        photo = read_photo(tmp_path / "out" / entry.photo, 1024)
        assert [entry.caption] == captioner.caption([photo])
    empty = [o["photo"] for o in outcomes(tmp_path / "out") if o["outcome"] == "empty_caption"]
    assert len(empty) == sum(entry.caption == "" for entry in found)
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "work" / "caption").iterdir()}
    assert main(arguments(world, tmp_path / "out", *more)) == 0
    assert made == {
        p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "work" / "caption").iterdir()
    }


def test_the_cascade_needs_no_detection_model(world, tmp_path, capsys):
    """On drawn faces with marks it sees little; what counts is that the sum is right."""
    (tmp_path / "pack").mkdir()
    recogniser = world.pack / "w600k_tiny.onnx"
    (tmp_path / "pack" / recogniser.name).write_bytes(recogniser.read_bytes())
    more = ("--detector", "cascade", "--models", tmp_path / "pack")
    assert main([*arguments(world, tmp_path / "out"), *map(str, more)]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["photos"]["in"] == len(world.expected)
    assert "Haar cascade" in capsys.readouterr().out


def failure(capsys, arguments):
    """The one line that a command that fails says."""
    capsys.readouterr()
    assert main(arguments) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    return line


def test_what_is_missing_is_named_in_one_sentence(world, tmp_path, capsys):
    good = arguments(world, tmp_path / "out")
    cases = {
        ("--photos", str(tmp_path / "nowhere")): "nowhere does not exist",
        ("--photos", str(tmp_path)): "lies in",
        ("--models", str(tmp_path / "nowhere")): "are no folder: give --models DIR",
        ("--captions", str(tmp_path)): "cannot be opened as a vision-language model",
        ("--min-fase", "3"): "--min-fase is no option here nor of Apache Beam",
        ("b",): "b is no option here nor of Apache Beam",
        ("--direct_num_workers", "2", "b"): "b is no option here nor of Apache Beam",
        ("-x",): "-x is no option here nor of Apache Beam",
    }
    for wrong, said in cases.items():
        assert said in failure(capsys, [*good, *wrong]), wrong
    (tmp_path / "none").mkdir()
    said = failure(
        capsys, [*good, "--photos", str(tmp_path / "none"), "--out", str(tmp_path / "o")]
    )
    assert "holds no photos of people" in said


def test_a_worker_in_another_process_does_the_same(world, out, tmp_path, capsys):
    more = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert main(arguments(world, tmp_path / "curated", *more)) == 0
    assert relocated(results(tmp_path / "curated"), tmp_path / "curated") == relocated(
        results(out), out
    )
    # And what goes wrong there is one sentence here.
    wrong = [*arguments(world, tmp_path / "curated"), *more, "--captions", str(tmp_path)]
    assert "cannot be opened as a vision-language model" in failure(capsys, wrong)
