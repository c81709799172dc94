"""Vision-language models with random weights, small enough to make on the spot."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from flashface_jax.curation.captions import QUESTION

WORDS = sorted({*QUESTION.replace(",", " ,").replace("?", " ?").split(), "user", "assistant", ":"})
TEMPLATE = (
    "{% for m in messages %}user : {% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE {% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


def tokenizer(*special):
    """Whole words, of the question and of answers."""
    words = ["<pad>", "</s>", "<unk>", *special, *WORDS, *(f"word{i}" for i in range(40))]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
    )


def text_sizes(words):
    return dict(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )


WITH_IMAGE = TEMPLATE.replace("IMAGE", "<image>")


def save_llava(folder, template=WITH_IMAGE):
    """A LLaVA: a CLIP tower of 4 patches, two Llama layers."""
    words = tokenizer("<image>")
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=16,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text_sizes(len(words))),
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    network = LlavaForConditionalGeneration(config)
    spread_out(network)
    pixels = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pixels,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    network.save_pretrained(folder)
    processor.save_pretrained(folder)


def spread_out(network):
    """Weights large enough that answers depend on the photo."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 / weight.shape[-1] ** 0.5)
            if "pixel" in name or "patch_embed" in name:
                weight.mul_(3)


def save_idefics3(folder):
    """An Idefics3, as SmolVLM is one: a SigLIP-like tower, pixels shuffled, two Llama layers.

    Photos are cut into tiles, so that those of another shape make longer or shorter prompts.
    """
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    around = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    special = ("<image>", *around, *tiles)
    words = tokenizer(*special)
    config = Idefics3Config(
        vision_config=dict(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=32, patch_size=8,
        ),
        text_config=LlamaConfig(**text_sizes(len(words))),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
        scale_factor=2,
    )  # fmt: skip
    torch.manual_seed(0)
    network = Idefics3ForConditionalGeneration(config)
    spread_out(network)
    pixels = Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    processor = Idefics3Processor(pixels, words, image_seq_len=4, chat_template=WITH_IMAGE)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
