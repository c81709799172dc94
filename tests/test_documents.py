"""What the documents name is there: files, and commands with options that they have."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from flashface_jax.cli import COMMANDS
from flashface_jax.common.command_line import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "flashface_jax").rglob("*.py")),
]
NAMED = re.compile(r"`((?:flashface_jax|tests|configs|benchmarks|docs)/[\w/.*]+\.(?:py|md|toml))")
INSIDE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)(?=[`:])")
PLACEHOLDERS = ("...", "<", "DIR", "NAME")


def commands(text: str) -> list[str]:
    """The command lines of `flashface` in a text, each in one line, without comments."""
    joined = re.sub(r"\\+\n\s*", " ", text)  # in a Python string they are doubled
    lines = re.findall(r"^\s+(?:[\w/.=]+ )*?(?:\.venv/bin/)?(flashface [a-z].*)$", joined, re.M)
    return [re.split(r"\s+#|\s+&|\s+>|\\$", line)[0].strip() for line in lines]


def documented() -> list[tuple[str, str]]:
    """Every command line, with the file that has it."""
    found = []
    for path in [*PAGES, *SOURCES]:
        for line in commands(path.read_text()):
            if "|" not in line and not any(word in line for word in PLACEHOLDERS):
                found.append((str(path.relative_to(ROOT)), line))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_are_there(page):
    text = page.read_text()
    named = {ROOT / name for name in NAMED.findall(text)}
    named |= {_inside(name) for name in INSIDE.findall(text)}
    missing = [str(path) for path in named if not any(ROOT.glob(str(path.relative_to(ROOT))))]
    assert not missing


def _inside(name: str) -> Path:
    """A file by its path from the root, or from the package."""
    top = name.split("/", maxsplit=1)[0]
    return ROOT / name if (ROOT / top).exists() else ROOT / "flashface_jax" / name


def test_the_documents_have_commands_of_every_kind():
    heads = {" ".join(line.split()[1:3]) for _, line in documented()}
    for command in COMMANDS[1:]:  # the first is the demo, which `make demo` runs
        assert any(head.startswith(command.words.split()[0]) for head in heads), command.words


@pytest.mark.parametrize(("place", "line"), documented(), ids=lambda text: text[:60])
def test_a_command_that_is_documented_parses(place, line):
    words = shlex.split(line)[1:]
    command = next(
        (one for one in COMMANDS if words[: len(one.words.split())] == one.words.split()), None
    )
    assert command is not None, f"{place}: {line}"
    parser = importlib.import_module(command.module).make_parser(f"flashface {command.words}")
    try:
        _, rest = parser.parse_known_args(words[len(command.words.split()) :])
    except UsageError as error:
        pytest.fail(f"{place}: {line}: {error}")
    except SystemExit as end:  # --help
        assert end.code == 0
        return
    beam = ("--direct_", "--runner", "--flink")
    unknown = [word for word in rest if not word.startswith(("--config.", *beam))]
    assert not unknown, f"{place}: {line}"
