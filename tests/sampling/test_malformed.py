"""What a user gets wrong: one sentence that names it, no traceback, and nothing written."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo

from flashface_jax.sampling.records import KEY
from tests.sampling.world import Image, save

HUGE = "1" + "0" * 400


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="module")
def files(sample_folder, tmp_path_factory):
    """A directory of damaged and odd files, as a user might name them."""
    folder = tmp_path_factory.mktemp("malformed")
    good = (sample_folder / "0.png").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes(good[: len(good) // 2])
    (folder / "head.png").write_bytes(good[:20])
    (folder / "text.png").write_text("I am no picture.")
    (folder / "directory.png").mkdir()
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    (folder / "huge.png").write_bytes(
        signature + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    (folder / "closed.png").write_bytes(good)
    (folder / "closed.png").chmod(0)
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    save(folder / "pixel.png", np.zeros((1, 1, 3), np.uint8))
    save(folder / "plain.png", np.full((200, 200, 3), 99, np.uint8))
    save(folder / "black.png", np.zeros((100, 150), np.uint8))
    save(folder / "small-mask.png", np.full((10, 10), 255, np.uint8))
    dot = np.zeros((100, 150), np.uint8)
    dot[50, 50] = 255
    save(folder / "dot.png", dot)
    for name in ("good.png", "mask.png", "photo.png"):
        shutil.copy(sample_folder / name.replace("good", "0"), folder / name)
    (folder / "full").mkdir()
    save(folder / "full" / "000.png", np.zeros((8, 8, 3), np.uint8))
    (folder / "file").write_text("mine")
    return folder


def refused(said, out: Path, *named: str) -> str:
    """The one sentence with which a command was refused."""
    wrong_usage = said.err.endswith("--help explains.\n")
    assert said.status == (2 if wrong_usage else 1), said
    assert "Traceback" not in said.err + said.out
    assert len(said.err.splitlines()) == 1, said.err
    (line,) = said.errors
    assert line.startswith("error: ") and line.endswith((".", "?")), line
    assert len(line) < 1200
    for name in named:
        assert name in line, f"{name!r} is not named: {line}"
    assert not out.exists(), list(out.iterdir())
    return line


OPTIONS = [
    # numbers
    ("--steps 0", "0 sampling steps"),
    ("--steps -1", "-1 sampling steps"),
    ("--steps 1001", "1001 sampling steps"),
    ("--steps 1000000000", "1000000000 sampling steps"),
    (f"--steps {HUGE}", "sampling steps"),
    ("--steps 2.5", "--steps"),
    ("--steps many", "--steps"),
    ("--steps", "--steps"),
    *[
        (f"--{name.replace('_', '-')} {value}", name)
        for name in (
            "text_guidance",
            "reference_guidance",
            "early_reference_strength",
            "reference_strength",
            "rescale",
            "eta",
        )
        for value in ("nan", "inf", "-0.5", "1000")
    ],
    *[
        (f"--{name} strong", f"--{name}")
        for name in ("text-guidance", "reference-guidance", "reference-strength", "rescale")
    ],
    ("--launch-timestep -7", "launch_timestep"),
    ("--launch-timestep 0.5", "--launch-timestep"),
    ("--reference-strength 0:1,0:2", "reference_strength"),
    ("--reference-strength 0.5:1,0.2:1", "reference_strength"),
    ("--reference-strength 0:1,2:1", "reference_strength"),
    ("--reference-strength 0:nan", "reference_strength"),
    ("--reference-strength nan:1", "reference_strength"),
    ("--reference-strength 0:1,", "--reference-strength"),
    ("--context 2", "--context"),
    ("--images 0", "--images"),
    ("--images -3", "--images"),
    ("--images 1000000000", "--images"),
    ("--seed -1", "seed"),
    ("--seed 4294967296", "seed"),
    ("--seed 4294967295 --images 2", "seed"),
    ("--seed 0x10", "--seed"),
    ("--batch 0", "--batch"),
    ("--batch 1000000", "--batch"),
    ("--tile 3", "--tile"),
    ("--tile -8", "--tile"),
    ("--tile 1000000000", "--tile"),
    ("--keep-features -1", "--keep-features"),
    ("--keep-features nan", "--keep-features"),
    ("--keep-features inf", "--keep-features"),
    # sizes
    *[
        (f"--size {size}", "--size")
        for size in ("64", "64x64x64", "axb", "64x", "-8x8", "1e2x64", "64.0x64", "٦٤x64", HUGE)
    ],
    ("--size 0x0", "0"),
    ("--size 65x64", "65x64"),
    ("--size 4x8", "4x8"),
    ("--size 9000x64", "9000"),
    ("--size 999999x999999", "999999"),
    # face positions
    ("--face-position 0.6 0.2 0.3 0.5", "[0.6, 0.2, 0.3, 0.5]"),
    ("--face-position 0.2 0.2 1.5 0.5", "1.5"),
    ("--face-position 10 10 80 80", "80"),
    ("--face-position -0.1 0 0.5 0.5", "-0.1"),
    ("--face-position nan 0 1 1", "nan"),
    ("--face-position 0 0 inf 1", "inf"),
    ("--face-position 0.1 0.2 0.3", "[0.1, 0.2, 0.3]"),
    ("--face-position 0 0 1 1 1", "[0.0, 0.0, 1.0, 1.0, 1.0]"),
    ("--face-position 0.5 0.5 0.51 0.51", "0.51"),
    ("--face-position upstairs", "'upstairs'"),
    ("--face-position left right", "'left right'"),
    ("--face-position 0.1 0.2 left 0.4", "left"),
    ("--face-position", "--face-position"),
    # people
    ("--references", "--references"),
    ("--reference-weights 1", "[[1.0]]"),
    ("--reference-weights 1 1 1", "reference_weights"),
    ("--reference-weights 1 1 --reference-weights 1 1", "reference_weights"),
    ("--reference-weights -1 1", "[-1.0, 1.0]"),
    ("--reference-weights nan 1", "reference_weights[0][0] is nan"),
    ("--reference-weights inf 1", "reference_weights[0][0] is inf"),
    ("--reference-weights 0 0", "[0.0, 0.0]"),
    ("--reference-weights 1 heavy", "--reference-weights"),
    ("--reference-weights 1 1 --fill-references 4", "fill_references"),
    ("--shares 0", "[0.0]"),
    ("--shares -1", "[-1.0]"),
    ("--shares nan", "shares[0] is nan"),
    ("--shares inf", "shares[0] is inf"),
    ("--shares 1 2", "[1.0, 2.0]"),
    ("--fill-references -1", "fill_references"),
    ("--fill-references 65", "fill_references"),
    ("--face first", "'first'"),
    ("--face -1", "'-1'"),
    ("--face 99999999999", "face"),
    ("--face 1.5", "'1.5'"),
    ("--detector retina", "retina"),
    ("--detector insightface --face-models nowhere", "insightface"),
    ("--detector cascade --face-models nowhere", "--face-models"),
    # flags
    ("--colour red", "--colour"),
    ("--prom x", "--prom"),
    ("stray", "stray"),
    ("--solver rk4", "rk4"),
    ("--spacing even", "even"),
    ("--preset beauty", "beauty"),
    ("--precision float16", "float16"),
    ("--jobs jobs.jsonl", "--jobs"),
    ("--repeat good.png", "--repeat"),
    ("--distributed", "--distributed"),
    ("--distributed here", "'here'"),
    ("--distributed here:1 one 2", "'here:1 one 2'"),
    ("--attention flash", "flash"),
    # painting into a photo
    ("--mask mask.png", "--mask"),
    ("--repaint-box left", "--repaint-box"),
    ("--repaint photo.png --mask mask.png --repaint-box left", "--mask"),
    ("--repaint nowhere.png --mask mask.png", "nowhere.png does not exist"),
    ("--repaint photo.png --mask mask.png --context 0.5", "context"),
    ("--repaint photo.png --mask mask.png --context nan", "context"),
    ("--repaint-face largest", "--repaint-face"),
    ("--repaint photo.png --mask nowhere.png", "nowhere.png does not exist"),
    ("--repaint photo.png --mask small-mask.png", "small-mask.png is 10x10"),
    ("--repaint photo.png --mask black.png", "black.png masks nothing"),
    ("--repaint photo.png --mask dot.png", "photo.png"),
    ("--repaint photo.png --mask text.png", "text.png"),
    ("--repaint half.png --mask mask.png", "half.png"),
    ("--repaint photo.png --repaint-box 90 90 10 10", "90.0"),
    ("--repaint photo.png --repaint-box 0 0 400 400", "400.0"),
    ("--repaint photo.png --repaint-box nan 0 1 1", "nan"),
    ("--repaint photo.png --repaint-box nowhere", "'nowhere'"),
    ("--repaint photo.png --repaint-box anywhere", "'anywhere'"),
    ("--repaint photo.png --repaint-box 0 0 0.01 0.01", "0.01"),
    ("--repaint pixel.png --repaint-box left", "pixel.png"),
    ("--repaint photo.png --repaint-face third --mask mask.png", "'third'"),
    ("--repaint photo.png", "--detector"),
    ("--repaint photo.png --detector cascade", "photo.png shows no face"),
]


@pytest.mark.parametrize(("more", "named"), OPTIONS, ids=[more[:50] for more, _ in OPTIONS])
def test_options(command, files, tmp_path, monkeypatch, more, named):
    monkeypatch.chdir(files)
    monkeypatch.setenv("HOME", str(tmp_path))
    base = ["--weights", str(command.folder / "weights"), "--detector", "none"]
    faces = ["--references", "good.png", "good.png"]
    out = tmp_path / "out"
    said = command(*base, *faces, "--prompt", "x", "--out", out, *more.split())
    refused(said, out, named)


PHOTOS = {
    "nowhere.png": "does not exist",
    "good.png/inside.png": "does not exist",
    "directory.png": "is a directory",
    "empty.png": "the file is empty",
    "half.png": "is no picture",
    "head.png": "is no picture",
    "text.png": "no JPEG, PNG or other known format",
    "huge.png": "reduce it",
    "closed.png": "Permission denied",
    "pipe.png": "no ordinary file",
    "loop.png": "symbolic links",
    "/dev/zero": "no ordinary file",
    "x" * 300 + ".png": "File name too long",
    "": "",
}


@pytest.mark.parametrize("as_", ["--references", "--repaint", "--mask", "--repeat"])
@pytest.mark.parametrize("name", PHOTOS, ids=[name[:20] or "empty name" for name in PHOTOS])
def test_pictures(command, files, tmp_path, monkeypatch, name, as_):
    if name == "closed.png" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    monkeypatch.chdir(files)
    out = tmp_path / "out"
    base = ["--weights", command.folder / "weights", "--out", out]
    if as_ == "--repeat":
        said = command(*base, "--repeat", name)
    else:
        faces = ["--references", "good.png"] if as_ != "--references" else []
        photo = ["--repaint", "photo.png"] if as_ == "--mask" else []
        mask = ["--mask", "mask.png"] if as_ == "--repaint" else []
        more = [*faces, *photo, *mask, as_, name, "--detector", "none"]
        said = command(*base, "--prompt", "x", *more)
    refused(said, out, name or ".", PHOTOS[name] if as_ != "--repeat" else "")


@pytest.mark.parametrize("name", ["pixel.png", "plain.png"])
def test_photos_without_a_face(command, files, tmp_path, name):
    out, photo = tmp_path / "out", files / name
    base = ["--weights", command.folder / "weights", "--prompt", "x", "--out", out]
    said = command(*base, "--references", photo, "--detector", "cascade")
    refused(said, out, f"{photo} shows no face")


RECORDS = {
    "no record": None,
    "no JSON": "{",
    "no object": "[1]",
    "nothing in it": "{}",
    "deep": "[" * 100_000,
    "size": {"size": "large"},
    "half a size": {"size": [64]},
    "huge size": {"size": [64, 10**9]},
    "job": {"job": 5},
    "job without people": {"job": {"prompt": "x"}},
    "job of another version": {"job": {"prompt": "x", "people": [["a"]], "hair": "red"}},
    "settings": {"sampling": {"steps": -1}},
    "setting of another version": {"sampling": {"warmth": 1}},
    "weights": {"weights": "there"},
    "weights elsewhere": {"weights": {"path": "nowhere", "sha256": ""}},
    "precision": {"precision": "float7"},
    "references": {"references": 3},
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_damaged_records(command, files, tmp_path, record):
    whole = {
        "software": "flashface-jax",
        "job": {"prompt": "x", "people": [[str(files / "good.png")]], "faces_cropped": True},
        "sampling": {},
        "size": [64, 64],
        "references": ["0"],
        "painted": None,
        "weights": {"path": str(command.folder / "weights"), "sha256": ""},
        "precision": "float32",
        "detector": None,
    }
    info = PngInfo()
    if record is not None:
        text = record if isinstance(record, str) else json.dumps({**whole, **record})
        info.add_itxt(KEY, text, zip=True)
    path, out = tmp_path / "made.png", tmp_path / "out"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, pnginfo=info)
    refused(command("--repeat", path, "--out", out), out, str(path))


def remove(place: Path) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink()


def cut_data(weights: Path) -> None:
    for file in (weights / "params" / "flashface").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:500])


def replace_with(name: str, kind: str):
    def do(weights: Path) -> None:
        remove(weights / name)
        if kind == "directory":
            (weights / name).mkdir()
        elif kind == "file":
            (weights / name).write_text("")

    return do


def write_config(content: str | bytes):
    def do(weights: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (weights / "config.json").write_bytes(data)

    return do


def change_config(value: object, *keys: str):
    def do(weights: Path) -> None:
        described = json.loads((weights / "config.json").read_text())
        inner = described
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (weights / "config.json").write_text(json.dumps(described))

    return do


DENOISER = ("system", "flashface", "denoiser")
DAMAGES = {
    "config empty": write_config(""),
    "config half": write_config('{"format": 1, "system"'),
    "config binary": write_config(bytes(range(256))),
    "config a directory": replace_with("config.json", "directory"),
    "config a list": write_config("[]"),
    "config deep": write_config("[" * 100_000),
    "config of another format": change_config(99, "format"),
    "system a list": change_config([], "system"),
    "size as text": change_config("large", "system", "image_size"),
    "size odd": change_config(63, "system", "image_size"),
    "steps zero": change_config(0, "system", "sampling", "steps"),
    "unknown field": change_config(1, "system", "colour"),
    "width zero": change_config(0, *DENOISER, "base_channels"),
    "width negative": change_config(-32, *DENOISER, "base_channels"),
    "no heads": change_config(0, *DENOISER, "num_heads"),
    "groups do not divide": change_config(7, *DENOISER, "norm_groups"),
    "other width": change_config(64, *DENOISER, "base_channels"),
    "no tokenizer": replace_with("tokenizer", "nothing"),
    "tokenizer empty": replace_with("tokenizer", "directory"),
    "tokenizer damaged": replace_with("tokenizer/vocab.json", "file"),
    "no parameters": replace_with("params", "nothing"),
    "part missing": replace_with("params/flashface", "nothing"),
    "part empty": replace_with("params/flashface", "directory"),
    "part a file": replace_with("params/flashface", "file"),
    "data cut": cut_data,
    "run without checkpoint": lambda weights: (weights / "checkpoints").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights(command, files, tmp_path, damage):
    copy, out = tmp_path / "weights", tmp_path / "out"
    shutil.copytree(command.folder / "weights", copy)
    damage(copy)
    base = ["--references", files / "good.png", "--detector", "none", "--prompt", "x"]
    refused(command("--weights", copy, *base, "--out", out), out, str(copy))


@pytest.mark.parametrize("name", ["nowhere", "file", "full", "file/inside", "x" * 300, "/dev/null"])
def test_no_weights(command, files, tmp_path, monkeypatch, name):
    monkeypatch.chdir(files)
    out = tmp_path / "out"
    base = ["--references", "good.png", "--detector", "none", "--prompt", "x"]
    refused(command("--weights", name, *base, "--out", out), out, name)


@pytest.mark.parametrize("place", ["file", "file/inside", "x" * 300, "/proc/out", "/dev/null", ""])
def test_places_that_cannot_be_written_to(command, files, tmp_path, monkeypatch, place):
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    said = command.prompt(place or "file/", "--prompt", "x")
    refused(said, tmp_path / "out", place or "file")
    assert sorted(files.rglob("*")) == before and (files / "file").read_text() == "mine"


def test_an_image_of_something_else_is_kept(command, files):
    before = (files / "full" / "000.png").read_bytes()
    said = command.prompt(files / "full", "--prompt", "x")
    refused(said, files / "nowhere", f"{files}/full/000.png was made otherwise")
    assert (files / "full" / "000.png").read_bytes() == before
    assert len(list((files / "full").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--prompt"),
        (["--prompt", "x"], "--references"),
        (["--prompt", "x", "--references", "good.png"], "--weights"),
        (["--prompt"], "--prompt"),
        (["--weights"], "--weights"),
        (["--jobs", "jobs.jsonl"], "--weights"),
        (["--repeat", "a.png", "--jobs", "b"], "--repeat"),
        (["--repeat", "a.png", "--steps", "5"], "--steps does not go with --repeat"),
        (["--repeat", "a.png", "--seed", "5"], "--seed does not go with --repeat"),
        (["--repeat", "a.png", "--distributed"], "--distributed does not go with --repeat"),
        (["--weights", "w", "--jobs", "b", "--size", "64x64"], "--size does not go with --jobs"),
        (["--weights", "w", "--jobs", "b", "--references", "a"], "--references does not go"),
        (["--weights", "w", "--prompt", "\udcff", "--references", "good.png"], "prompt"),
        (["--weights", "w", "--prompt", "x" * 20_000, "--references", "good.png"], "20000"),
    ],
    ids=lambda value: (
        None if isinstance(value, str) else " ".join(value)[:40].encode("ascii", "replace").decode()
    ),
)
def test_whole_commands(command, tmp_path, arguments, named):
    out = tmp_path / "out"
    refused(command(*arguments, "--out", out), out, named)


# Jobs files: the line that is wrong is said, and then how many failed.

LINES = {
    "no JSON": ("{", "no JSON"),
    "half JSON": ('{"prompt": "x"', "no JSON"),
    "text": ("a young man", "no JSON"),
    "NaN": ('{"eta": NaN}', "NaN is no number"),
    "Infinity": ('{"eta": -Infinity}', "-Infinity is no number"),
    "deep": ("[" * 100_000, "no JSON"),
    "nested people": ('{"prompt": "x", "people": ' + "[" * 500 + "]" * 500 + "}", "people"),
    "endless number": ('{"seed": ' + "9" * 5000 + "}", "no JSON"),
    "twice": ('{"seed": 1, "seed": 2}', "'seed' is given twice"),
    "list": ("[]", "no JSON object"),
    "number": ("7", "no JSON object"),
    "null": ("null", "no JSON object"),
    "string": ('"x"', "no JSON object"),
    "empty": ("{}", "'prompt'"),
}
FIELDS = {
    "prompt": [5, None, ["x"], {}, True, "x" * 20_000, "\ud800"],
    "people": [None, "me.png", [], [[]], [5], [["a", 5]], {"a": 1}, [["good.png"], []], 7],
    "negative_prompt": [5, [], None],
    "seed": ["1", 1.5, -1, 2**32, 10**400, True, None, [1]],
    "reference_weights": [5, [1], [["1"]], [[1, 2]], [[-1]], [[0]], [[10**400]], "1"],
    "shares": ["1", [0], [-1], [1, 2], [None], {"a": 1}, [1e308]],
    "fill_references": ["4", -1, 65, 2.5, None, 10**400],
    "faces_cropped": ["yes", 1, None, []],
    "face": [1.5, "first", -1, None, True, []],
    "face_position": [5, None, [0.1, 0.2, 0.3], ["a", 0, 0, 1], [0.5, 0, 0.1, 1], "up", {}],
    "height": ["64", 64.0, 0, -8, 65, 10**9, True],
    "width": ["64", 64.5, 0, -64, 100, 10**400, []],
    "preset": ["beauty", 5, ["identity"]],
    "settings": [5, [], None, {"warmth": 1}, {"steps": "5"}],
    "repaint": [
        *(5, "photo.png", [], {}, {"photo": 5}, {"photo": "photo.png", "colour": 1}),
        *({"photo": "nowhere.png", "mask": "mask.png"}, {"photo": "photo.png", "context": "3"}),
        *({"photo": "photo.png", "context": 0}, {"photo": "photo.png", "box": [1, 2, 3]}),
        {"photo": "photo.png", "mask": "mask.png", "box": "left"},
    ],
    "name": [5, "a/b", ".hidden", "x" * 300, "a\x00b", "a\nb", "sheet", None, "\ud800"],
    "steps": ["5", 0, -1, 1001, 10**400, 2.5, True, None],
    "solver": ["rk4", 5, None, []],
    "spacing": ["even", 5],
    "reference_strength": ["strong", None, True, -1, 11, [[0]], [[0, 1], [0, 2]], [], [[0, "1"]]],
    "launch_timestep": ["750", 7.5, -2, None],
    "rescale": ["0.5", 2, None, True],
    "eta": [-0.1, "0"],
    "text_guidance": [10**400, "7", [7], True],
    "prompt_suffix": [5, None],
    "colour": ["red"],
}
ALSO_CALLED = {
    "people": ("photos of a person", "me.png"),
    "face_position": ("face position",),
    "width": ("image size",),
    "height": ("image size",),
    "settings": ("steps", "warmth"),
    "repaint": ("photo", "colour", "nowhere.png", "context", "box"),
}
FIELD_VALUES = [(name, value) for name, values in FIELDS.items() for value in values]


def complained(said, out: Path, of: int) -> list[str]:
    """What was said of each line that is wrong, where no image could be made."""
    wrong_usage = said.err.endswith("--help explains.\n")
    assert said.status == (2 if wrong_usage else 1), said
    assert "Traceback" not in said.err + said.out
    *lines, last = said.errors
    assert last == f"error: {of} of {of} could not be made, as said above."
    assert len(lines) == of, lines
    assert all(line.endswith(".") and len(line) < 1300 for line in lines), lines
    assert not out.exists()
    return lines


@pytest.mark.parametrize(("line", "named"), LINES.values(), ids=LINES)
def test_lines_of_jobs_files(command, tmp_path, line, named):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    file.write_text(f"\n{line}\n\n")
    (said,) = complained(command.jobs(file, out), out, of=1)
    assert said.startswith(f"{file}, line 2: ") and named in said


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_jobs(command, files, tmp_path, monkeypatch, name):
    monkeypatch.chdir(files)
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    good = {"prompt": "x", "people": ["good.png"]}
    lines = [json.dumps({**good, name: value}) for value in FIELDS[name]]
    file.write_text("\n".join(lines))
    said = complained(command.jobs(file, out), out, of=len(lines))
    for line in said:
        what = line.split(": ", 1)[1]
        assert any(word in what for word in (name, *ALSO_CALLED.get(name, ()))), line


def test_files_that_jobs_name(command, files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    names = [name for name in PHOTOS if name not in ("closed.png", "")]
    file.write_text("\n".join(json.dumps({"prompt": "x", "people": [name]}) for name in names))
    said = complained(command.jobs(file, out), out, of=len(names))
    # What shows without reading comes first.
    for i, name in enumerate(names):
        (line,) = (line for line in said if line.startswith(f"{i:06d}: "))
        assert name in line and PHOTOS[name] in line


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        ("directory", "directory"),
        (b"", "holds no job"),
        (b"\n \n\n", "holds no job"),
        (bytes(range(256)), "no text file"),
        (b'{"prompt": "\xff\xfe"}', "no text file"),
        ('{"prompt": "x"}'.encode("utf-16"), "no text file"),
    ],
    ids=["missing", "directory", "empty", "blank", "binary", "bad UTF-8", "UTF-16"],
)
def test_jobs_files(command, tmp_path, content, named):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    if content == "directory":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    refused(command.jobs(file, out), out, str(file), named)


def test_a_device_is_no_jobs_file(command, tmp_path):
    refused(command.jobs(Path("/dev/zero"), tmp_path / "out"), tmp_path / "out", "/dev/zero")


def test_two_jobs_of_one_name_are_refused(command, files, tmp_path):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    one = json.dumps({"prompt": "x", "people": [str(files / "good.png")], "name": "me"})
    file.write_text(f"{one}\n{one}\n")
    refused(command.jobs(file, out), out, "'me'")


def test_there_are_enough_of_these():
    values = len(OPTIONS) + 4 * len(PHOTOS) + len(RECORDS) + len(DAMAGES)
    assert values + len(LINES) + len(FIELD_VALUES) >= 100
