"""Compiler options: the installed XLA takes them, and others go without."""

from flashface_jax.common import compilation


def test_the_installed_version_takes_every_option():
    compilation.compiler_options.cache_clear()
    assert compilation.compiler_options() == compilation.CPU_OPTIONS


def test_an_unknown_option_is_left_out(monkeypatch):
    monkeypatch.setitem(compilation.CPU_OPTIONS, "xla_cpu_retired_option", True)
    compilation.compiler_options.cache_clear()
    assert "xla_cpu_retired_option" not in compilation.compiler_options()
    compilation.compiler_options.cache_clear()


def test_other_devices_get_none(monkeypatch):
    monkeypatch.setattr(compilation.jax, "default_backend", lambda: "gpu")
    compilation.compiler_options.cache_clear()
    assert compilation.compiler_options() == {}
    compilation.compiler_options.cache_clear()
