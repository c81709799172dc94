"""Held-out people: which are shown, with which photos."""

import numpy as np
import pytest
from absl import logging

from flashface_jax.data.loading.samples import SampleShape
from flashface_jax.training.monitoring.held_out import held_out_requests
from flashface_jax.training.monitoring.preview import Preview
from flashface_jax.weights.tokenizer import train_tokenizer
from tests.data.worlds import flat_dataset, told

SHAPE = SampleShape(image_size=64, reference_size=32, stride=8)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Ask for people of a flat dataset: (identity, photo) of targets and references."""
    tokenizer = train_tokenizer(["a photo"], tmp_path_factory.mktemp("tokens"), 32, 600)

    def asked(counts, broken, most_people):
        photos = flat_dataset(tmp_path_factory.mktemp("flat"), counts, broken).photos("train")
        made = held_out_requests(photos, most_people, tokenizer, SHAPE, 3, seed=5)
        assert made.captions == [f"a photo number {photo}" for _, photo in targets_of(made)]
        assert made.request.seeds.tolist() == [5 + i for i in range(len(made.captions))]
        references = told(np.asarray(made.request.references)[:, :, 16, 16])
        return targets_of(made), [list(map(tuple, row)) for row in references.tolist()]

    return asked


def targets_of(made):
    return list(map(tuple, told(made.targets[:, 32, 32]).tolist()))


def test_the_first_photo_is_asked_for_with_the_next_ones_as_references(ask):
    targets, references = ask([5, 3], frozenset(), 9)
    assert targets == [(0, 0), (1, 0)]
    assert references == [[(0, 1), (0, 2), (0, 3)], [(1, 1), (1, 2), (1, 1)]]


def test_damaged_photos_and_people_with_a_single_photo_are_passed_over(ask, monkeypatch):
    named = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: named.append(text % values))
    broken = {(0, 1), (2, 0), (2, 2)}
    targets, references = ask([2, 1, 5, 2, 2], broken, 2)
    assert targets == [(2, 1), (3, 0)]
    assert references == [[(2, 3), (2, 4), (2, 3)], [(3, 1)] * 3]
    assert [line.split(":")[0] for line in named] == ["0-1.jpg", "2-0.jpg", "2-2.jpg"]


def test_nobody_to_ask_for_is_said(ask):
    with pytest.raises(ValueError, match="No held-out person has two photos that decode"):
        ask([1, 2], {(1, 0)}, 4)


def test_metrics_are_given_all_that_was_asked_for(tmp_path):
    tokenizer = train_tokenizer(["a photo"], tmp_path / "tokens", 32, 600)
    photos = flat_dataset(tmp_path / "flat", [3, 3], frozenset()).photos("train")
    asked = held_out_requests(photos, 2, tokenizer, SHAPE, 2, seed=0)
    given = []

    def brightness(made):
        given.append(made)
        return {"brightness": float(made.images.mean())}

    def people(made):
        return {"people": float(len(made.prompts))}

    preview = Preview(asked, lambda state: None, (brightness, people), cell=64)
    images = np.full_like(asked.targets, 7)
    assert preview.scores(images) == {"brightness": 7.0, "people": 2.0}
    (made,) = given
    assert made.images is images and made.prompts == tuple(asked.captions)
    np.testing.assert_array_equal(made.targets, asked.targets)
    np.testing.assert_array_equal(made.references, asked.request.references)
    # Each photo's face is a 32 x 48 box at (16, 8), in a square that is shown 64 pixels wide.
    assert made.face_boxes.shape == (2, 4) and made.references.shape == (2, 2, 32, 32, 3)
