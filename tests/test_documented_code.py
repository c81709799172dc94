"""The Python code on pages runs as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)


@pytest.fixture
def run(sample_folder, tmp_path, monkeypatch):
    """Run a page's code, in order, in a folder where small weights are."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "flashface").symlink_to(sample_folder / "weights")
    monkeypatch.chdir(tmp_path)

    def run(page, **names):
        for block in blocks(page):
            exec(compile(block, page, "exec"), names)
        return names

    return run


def test_readme(run):
    rng = np.random.default_rng(0)
    ann, eve = (rng.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in (2, 3))
    made = run("README.md", ann_faces=ann, eve_faces=eve)
    assert made["made"].images.shape == (2, 64, 64, 3)
    assert made["features"].keys() == {"middle/0", "decoder/0/0", "decoder/1/0"}
    assert made["noise"].shape == (1, 32, 32, 4)
    assert not made["noise"].any(), "the page says that fresh parameters predict exactly 0"


def test_library_page(run, capsys):
    made = run("docs/library.md")
    said = capsys.readouterr().out.strip()
    assert said and f"    {said}\n" in (ROOT / "docs/library.md").read_text()
    assert made["count"] > 100_000
    assert made["noise"].any()
    assert made["images"].shape == (1, 64, 64, 3)
    params, gradient = made["params"]["flashface"], made["gradient"]
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert float(made["value"]) > 0
    assert gradient["denoiser"]["head"]["conv"]["kernel"].any()
