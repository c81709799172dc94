"""Compiler options: the installed XLA takes them, and others go without."""

import pytest

from flashface_jax.common import compilation

EVERY = [
    (compilation.compiler_options, compilation.CPU_OPTIONS),
    (compilation.drawing_options, compilation.CPU_DRAWING_OPTIONS),
]


@pytest.fixture(params=EVERY, ids=["all programs", "drawing"])
def which(request):
    """What returns options, asked anew, and those for a CPU."""
    options, for_cpu = request.param
    options.cache_clear()
    yield options, for_cpu
    options.cache_clear()


def test_the_installed_version_takes_every_option(which):
    options, for_cpu = which
    assert options() == for_cpu != {}


def test_an_unknown_option_is_left_out(which, monkeypatch):
    options, for_cpu = which
    monkeypatch.setitem(for_cpu, "xla_cpu_retired_option", True)
    assert "xla_cpu_retired_option" not in options()


def test_other_devices_get_none(which, monkeypatch):
    monkeypatch.setattr(compilation.jax, "default_backend", lambda: "gpu")
    assert which[0]() == {}
