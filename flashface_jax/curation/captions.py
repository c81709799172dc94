"""Captions by a vision-language model that transformers can load."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flashface_jax.common.errors import sentence

Pixels = UInt8[np.ndarray, "_ _ 3"]

QUESTION = (
    "Can you provide a detailed description of the person in the photo, including their physical "
    "appearance, hairstyle, facial expression, pose or action, accessories, clothing style, and "
    "background environment?"
)
"""As the paper asks it."""


class VisionLanguageCaptioner:
    """Describes photos in words, greedily: the same photos give the same words.

    Args:
        model: a Hugging Face id, or a local directory, of a model for images and text.
        max_tokens: longest answer.
        batch: photos at a time.

    Raises:
        ValueError: PyTorch or the model is missing, or it is no such model.

    Source: paper, data collection, with Qwen-VL.
    """

    def __init__(self, model: str, max_tokens: int, batch: int) -> None:
        try:
            import torch  # noqa: PLC0415  (optional)
        except ImportError as error:
            raise ValueError(
                f"PyTorch cannot be imported ({error}): pip install 'flashface-jax[curation]'."
            ) from error
        from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = "auto" if self._device == "cuda" else torch.float32
        try:
            self._processor: Any = AutoProcessor.from_pretrained(model)
            network: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(
                f"{model} cannot be opened as a vision-language model ({sentence(error)}) Name a "
                "Hugging Face id or a directory that AutoModelForImageTextToText takes."
            ) from error
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError(f"{model} has no chat template: take a model tuned for instructions.")
        self._network = network.eval().to(self._device)
        # Answers begin where prompts end, so that prompts of a batch must end together.
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._limits = {"max_new_tokens": max_tokens, "do_sample": False, "num_beams": 1}
        self._batch = batch
        self._too_large: type[Exception] = torch.OutOfMemoryError

    def caption(self, images: Sequence[Pixels]) -> list[str]:
        """What the model answers for each photo, in one line each.

        Raises:
            ValueError: there is too little memory for a batch.
        """
        captions: list[str] = []
        try:
            for start in range(0, len(images), self._batch):
                captions += self._answer(images[start : start + self._batch])
        except self._too_large as error:
            raise ValueError(
                f"The device has too little memory for {self._batch} photos at a time: lower "
                "--caption-batch, or take a smaller model."
            ) from error
        return captions

    def _answer(self, images: Sequence[Pixels]) -> list[str]:
        asked = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        prompt = self._processor.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=False
        )
        inputs = self._processor(
            images=[[Image.fromarray(image)] for image in images],
            text=[prompt] * len(images),
            padding=True,
            return_tensors="pt",
        ).to(self._device, dtype=self._network.dtype)
        answered = self._network.generate(**inputs, **self._limits)
        said = answered[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(said, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]
