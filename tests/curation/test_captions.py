"""Captions by a small vision-language model with random weights."""

import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'flashface-jax[curation]'")

from flashface_jax.curation.captions import QUESTION, VisionLanguageCaptioner
from flashface_jax.world import SyntheticWorld
from tests.curation.tiny_models import save_idefics3, save_llava

WORLD = SyntheticWorld(0, 5, 1, 96)
FAMILIES = {"llava": save_llava, "idefics3": save_idefics3}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](folder)
    return str(folder)


@pytest.fixture(scope="module")
def photos():
    """Of different shapes."""
    images = [WORLD.photo(i, 0).image for i in range(5)]
    return [*images[:3], np.ascontiguousarray(images[3][:30]), images[4]]


def test_each_photo_gets_its_own_words_whatever_batch_it_is_in(model, photos):
    """The greedy answer is a function of the photo alone."""
    alone = [VisionLanguageCaptioner(model, 6, 1).caption([photo])[0] for photo in photos]
    together = VisionLanguageCaptioner(model, 6, 2).caption(photos)
    assert together == alone
    assert len(set(together)) >= 3 and all(together), "the answers must depend on the photo"


def test_an_answer_holds_no_more_tokens_than_asked_for_and_not_the_question(model, photos):
    for most in (1, 5):
        for said in VisionLanguageCaptioner(model, most, 3).caption(photos):
            assert len(said.split()) <= most
            assert "assistant" not in said and "\n" not in said


def test_the_model_is_asked_the_papers_question(model, photos, monkeypatch):
    captioner = VisionLanguageCaptioner(model, 2, 2)
    asked = []
    processor = captioner._processor

    class Listening:
        def __getattr__(self, name):
            return getattr(processor, name)

        def __call__(self, **inputs):
            asked.extend(inputs["text"])
            return processor(**inputs)

    monkeypatch.setattr(captioner, "_processor", Listening())
    captioner.caption(photos)
    assert len(asked) == len(photos) and all(QUESTION in text for text in asked)


def test_the_question_is_the_papers_word_for_word():
    assert QUESTION == (
        "Can you provide a detailed description of the person in the photo, including their "
        "physical appearance, hairstyle, facial expression, pose or action, accessories, "
        "clothing style, and background environment?"
    )


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be opened as a vision-language model") as error:
        VisionLanguageCaptioner(str(tmp_path), 6, 1)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_a_chat_template_is_named(tmp_path):
    save_llava(tmp_path, template=None)
    with pytest.raises(ValueError, match="has no chat template"):
        VisionLanguageCaptioner(str(tmp_path), 6, 1)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"pip install 'flashface-jax\[curation\]'"):
        VisionLanguageCaptioner("anything", 6, 1)


def test_too_little_memory_is_named_with_its_remedy(model, photos, monkeypatch):
    import torch  # noqa: PLC0415

    captioner = VisionLanguageCaptioner(model, 2, 2)

    def fail(**_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(captioner._network, "generate", fail)
    with pytest.raises(ValueError, match="too little memory for 2 photos at a time: lower --cap"):
        captioner.caption(photos)
