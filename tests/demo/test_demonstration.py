"""The demo end to end in its smallest form, and that it says so when identity is not carried."""

import json

import numpy as np
import pytest
from PIL import Image

from flashface_jax.demo.demonstration import demonstrate, report
from flashface_jax.evaluation.identity import train_identity_encoder
from flashface_jax.training.config import load_config
from flashface_jax.world import SyntheticWorld
from tests.small import AVERAGING

TRUST = {"auc": 0.97, "same": 76.0, "different": 2.0}


def scores(own, another, none):
    noise = np.random.default_rng(0).normal(0, 1, (3, 50))
    means = {"own references": own, "another's": another, "no references": none}
    return {name: mean + row for (name, mean), row in zip(means.items(), noise, strict=True)}


def test_a_demo_of_the_smallest_run(tmp_path, capsys):
    people = SyntheticWorld(seed=9, num_identities=4, photos_per_identity=2, image_size=64)
    encoder = train_identity_encoder(people, steps=2, batch_size=8, progress=False)
    (tmp_path / "demo").mkdir()
    encoder.save(tmp_path / "demo" / "identity_encoder.npz")  # as an interrupted demo leaves it
    demonstrate(AVERAGING, people, tmp_path / "demo", most_people=2)
    said = capsys.readouterr().out
    for name in ("own references", "another's", "no references"):
        assert name in said
    found = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert {len(values) for values in found["similarity"].values()} == {2}
    for name in ("held_out.png", "prompts.png", "people/00/1.png"):
        assert np.asarray(Image.open(tmp_path / "demo" / name)).std() > 0, name


@pytest.mark.parametrize(
    ("own", "another", "none", "carried"),
    [(30, 20, 0, True), (30, 30, 0, False), (30, 20, 30, False), (20, 30, 0, False)],
)
def test_the_report_claims_identity_only_if_it_beats_both_others(own, another, none, carried):
    text, said = report(scores(own, another, none), TRUST)
    assert said == carried
    assert ("NOT clearly carried" in text) == (not carried), text


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.py does not exist"):
        load_config(tmp_path / "nowhere.py")
