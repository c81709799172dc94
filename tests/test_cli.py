"""One command: what it lists, how it answers mistakes, and what it does not import for that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.command_line import WORDS as MISSING
from flashface_jax.cli import COMMANDS, help_text, main

ROOT = Path(__file__).parents[1]
SLOW = ("jax", "flax", "torch", "cv2", "tensorflow_datasets", "transformers", "orbax")

ANSWERED = """
import contextlib, io, json, sys
from flashface_jax.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    answers.append([status, out.getvalue(), err.getvalue()])
print(json.dumps([answers, [name for name in sys.argv[2].split() if name in sys.modules]]))
"""


def test_every_command_is_tried_here():
    assert {name.split(" ")[0] for name in MISSING} == {one.words.split()[0] for one in COMMANDS}
    assert {one.words for one in COMMANDS} - {"convert"} <= set(MISSING)


@pytest.mark.parametrize("name", MISSING)
def test_help_and_mistakes_are_answered_before_anything_slow_is_imported(name, tmp_path):
    words = name.split()
    tried = [[*words, "--help"], [*words, *MISSING[name], "--nope"], [*words, *MISSING[name]]]
    done = subprocess.run(
        [sys.executable, "-c", ANSWERED, json.dumps(tried), " ".join(SLOW)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    answers, imported = json.loads(done.stdout)
    (helped, shown, _), (wrong, _, of_flag), (missing, _, of_file) = answers
    assert imported == []
    assert helped == 0 and f"flashface {name}" in shown
    assert (wrong, missing) == (1 if name == "curate" else 2, 1)
    for said in (of_flag, of_file):
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert said.endswith(".\n")
    assert "nope" in of_flag or name == "curate", of_flag  # where it may be Beam's
    assert "nowhere" in of_file, of_file
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_an_example_that_calls_it(capsys):
    for name in MISSING:
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert text.count(f"flashface {name} ") >= 2, f"{name} has usage, and no example"


def test_the_list_has_a_line_for_each_command(capsys):
    assert main([]) == main(["--help"]) == 0
    said = capsys.readouterr().out
    assert said == help_text() * 2
    for command in COMMANDS:
        assert f"  {command.words} " in said and command.says in said


def test_a_group_lists_its_commands_and_names_them_for_a_wrong_one(capsys):
    assert main(["data"]) == main(["data", "--help"]) == 0
    assert "data build  a manifest -> a dataset" in capsys.readouterr().out
    assert main(["data", "bild"]) == 2
    said = capsys.readouterr().err
    assert "no command 'data bild'" in said and "data build" in said and "sample" not in said
    assert main(["smaple"]) == 2
    assert "no command 'smaple': choose demo, convert, sample" in capsys.readouterr().err


FORMER = {
    "sample.py": "sample.py",
    "train.py": "train.py",
    "-m flashface_jax": "flashface",
    "-m flashface_jax.convert": "python -m flashface_jax.convert",
    "-m flashface_jax.curation": "python -m flashface_jax.curation",
    "-m flashface_jax.data.build": "python -m flashface_jax.data.build",
    "-m flashface_jax.data.inspect": "python -m flashface_jax.inspection",
    "-m flashface_jax.data.precompute": "python -m flashface_jax.data.precompute",
    "-m flashface_jax.data.remove": "python -m flashface_jax.data.remove",
    "-m flashface_jax.data.synthetic": "python -m flashface_jax.data.synthetic",
    "-m flashface_jax.demo": "python -m flashface_jax.demo",
    "-m flashface_jax.training.plan": "python -m flashface_jax.training.plan",
}


@pytest.mark.parametrize("former", FORMER)
def test_forms_that_the_readme_once_named_still_work(former):
    done = subprocess.run(
        [sys.executable, *former.split(), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {FORMER[former]} " in done.stdout
