"""Which parameters train, and how those that train and those that do not make one set again."""

from collections.abc import Callable
from typing import Any

from flashface_jax.models.lora import LoraConfig, trains_beside_lora, with_lora
from flashface_jax.models.network import Params

LORA = "lora"
FLASHFACE = "flashface"


def split_trainable(
    drawn: dict[str, Params], trainable: tuple[str, ...], lora: LoraConfig | None
) -> tuple[dict[str, Params], dict[str, Params]]:
    """Return the parameters that train and those that do not, part -> tree.

    With LoRA, FlashFace itself is in both: its ReferenceNet and reference attention train.
    """
    params = {part: tree for part, tree in drawn.items() if part in trainable}
    frozen = {part: tree for part, tree in drawn.items() if part not in trainable}
    if lora is not None:
        whole = drawn[FLASHFACE]
        params[LORA] = frozen.pop(LORA)
        params[FLASHFACE] = _chosen(whole, trains_beside_lora)
        frozen[FLASHFACE] = _chosen(whole, lambda name: not trains_beside_lora(name))
    return params, frozen


def merge_trainable(
    params: dict[str, Params], frozen: dict[str, Params], lora: LoraConfig | None
) -> dict[str, Params]:
    """Return all parameters as the networks want them, low-rank updates added."""
    everything = _merged(frozen, params)
    if lora is not None:
        updates = everything.pop(LORA)
        everything[FLASHFACE] = with_lora(everything[FLASHFACE], updates, lora)
    return everything


def _chosen(tree: Params, wanted: Callable[[str], bool], place: str = "") -> Params:
    """The leaves whose names are wanted; branches without any are gone."""
    chosen: Params = {}
    for key, value in tree.items():
        name = f"{place}{key}"
        if isinstance(value, dict):
            if below := _chosen(value, wanted, f"{name}/"):
                chosen[key] = below
        elif wanted(name):
            chosen[key] = value
    return chosen


def _merged(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """Nested dicts put together; no leaf is in both."""
    merged = dict(first)
    for key, value in second.items():
        merged[key] = _merged(merged[key], value) if key in merged else value
    return merged
