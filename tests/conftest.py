"""Checks array shapes at run time in every test; computes in full float32 precision."""

import atexit
import os
import shutil
import tempfile

# The suite compiles far more than it computes: LLVM's optimisations cost more than they save, and
# so do XLA's newer fusions and compiling a program in parts, which take a quarter of the time.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1 " + os.environ.get("XLA_FLAGS", "")
)

# Runs of the same configuration compile once, in whichever process they are.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # processes that the tests start inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="flashface-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

from jaxtyping import install_import_hook

install_import_hook("flashface_jax", "beartype.beartype")

import jax  # noqa: E402  (after the hook, so that nothing of ours is imported unchecked)

jax.config.update("jax_default_matmul_precision", "float32")

import pytest  # noqa: E402

from tests.sampling import world as sampling  # noqa: E402

LONG = ("tests/training/", "tests/demo/", "tests/sampling/test_pipeline.py")
"""Files of few tests that take long: they begin first, or one process would end up with them."""


def pytest_collection_modifyitems(items):
    """Put the long files first; the order of the others stays."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    """A folder with weights and photos."""
    return sampling.make_folder(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def opened():
    """What stands in for opening a pipeline: the same one for all tests."""
    return sampling.Opened()


@pytest.fixture
def command(sample_folder, opened, monkeypatch, capsys):
    """The sample.py command, in process."""
    monkeypatch.setattr(sampling.FlashFacePipeline, "from_directory", opened)
    return sampling.Command(sample_folder, capsys)
