"""The package imports, importing it starts no accelerator backend, and benchmarks find it."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def test_import_is_light():
    code = "import flashface_jax, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    """Nothing runs or type-checks the benchmarks."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flashface_jax"):
            module = importlib.import_module(node.module)
            missing = [one.name for one in node.names if not _has(module, one.name)]
            assert not missing, f"{node.module} has no {missing}"


def _has(module, name):
    if hasattr(module, name):
        return True
    return importlib.util.find_spec(f"{module.__name__}.{name}") is not None
