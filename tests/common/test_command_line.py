"""How commands end: one sentence, and a status that says what kind of end it was."""

import pytest

from flashface_jax.common.command_line import Parser, UsageError, run_command
from flashface_jax.common.errors import ProblemsError


def ends(capsys, error):
    def work():
        raise error

    status = run_command(work, on_stop="nothing was written.", on_memory="take less.")
    captured = capsys.readouterr()
    assert captured.out == ""
    return status, captured.err


ENDS = {
    "wrong": (ValueError("it is\n  wrong"), 1, "error: it is wrong.\n"),
    "system": (OSError(28, "No space left", "a.png"), 1, "error: a.png: No space left.\n"),
    "usage": (UsageError("no --x"), 2, "error: no --x.\n"),
    "several": (ProblemsError("two:\n  a\n  b"), 1, "error: two:\n  a\n  b\n"),
    "long": (ProblemsError("x" * 2000), 1, f"error: {'x' * 2000}\n"),
    "stopped": (KeyboardInterrupt(), 130, "\nerror: stopped; nothing was written.\n"),
    "memory": (MemoryError(), 1, "error: take less.\n"),
    "device": (RuntimeError("RESOURCE_EXHAUSTED: out"), 1, "error: take less.\n"),
    "package": (
        ModuleNotFoundError("No module", name="torch"),
        1,
        "error: this needs PyTorch: pip install 'flashface-jax[convert]'.\n",
    ),
}


@pytest.mark.parametrize("kind", ENDS)
def test_an_error_is_said_as_what_it_is(capsys, kind):
    error, status, said = ENDS[kind]
    assert ends(capsys, error) == (status, said)


@pytest.mark.parametrize(
    "fault", [RuntimeError("INTERNAL"), ModuleNotFoundError("no", name="nowhere"), KeyError("x")]
)
def test_a_fault_of_the_program_is_not_hidden(capsys, fault):
    with pytest.raises(type(fault)):
        ends(capsys, fault)


def test_what_the_work_returns_is_the_status():
    assert run_command(lambda: None, on_stop="") == 0
    assert run_command(lambda: 3, on_stop="") == 3


def test_a_parser_raises_in_one_sentence_that_names_its_help():
    parser = Parser(prog="flashface x")
    parser.add_argument("--steps", type=int)
    with pytest.raises(UsageError, match=r"invalid int value: 'a'; flashface x --help explains\."):
        parser.parse_args(["--steps", "a"])
    with pytest.raises(UsageError, match="unrecognized arguments: --st"):
        parser.parse_args(["--st", "3"])  # no abbreviations
