"""The export command: a weights directory or a run in, the released files out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from flashface_jax.common.files import atomic_directory, require_new, require_space
from flashface_jax.convert.files.state_files import (
    Form,
    Precision,
    State,
    in_precision,
    writer,
)
from flashface_jax.convert.official import (
    autoencoder_table,
    flashface_table,
    image_tower_table,
    text_tower_table,
)
from flashface_jax.convert.released import inexpressible, settings_to_tell
from flashface_jax.convert.table import ConversionError, Table
from flashface_jax.convert.unused import read_unused, unused_path
from flashface_jax.models.autoencoder.patch_cosines import PatchCosinesConfig
from flashface_jax.models.network import Network, flatten
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import build_system
from flashface_jax.weights.tokenizer import write_clip_vocabulary

TABLES: dict[str, Callable[[Any], Table]] = {
    "flashface": flashface_table,
    "autoencoder": autoencoder_table,
    "text_tower": text_tower_table,
    "image_tower": image_tower_table,
}


@dataclass(frozen=True)
class ReleasedFile:
    """One released state dict.

    Attributes:
        stem: name without what says its form.
        suffix: that of the official form.
        parts: the parts whose tensors it holds; it is not written without the first.
    """

    stem: str
    suffix: str
    parts: tuple[str, ...]

    def name(self, form: Form) -> str:
        """Name of the file in a form."""
        return self.stem + (self.suffix if form == "official" else ".safetensors")


FILES = (
    ReleasedFile("flashface", ".ckpt", ("flashface",)),
    ReleasedFile("sd-v1-vae", ".pth", ("autoencoder",)),
    ReleasedFile("openai-clip-vit-large-14", ".pth", ("text_tower", "image_tower")),
)
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


def export(directory: Path, out: Path, form: Form, precision: Precision) -> None:
    """Write the released files into a new directory `out`.

    Args:
        directory: converted weights, or the working directory of a run: its newest checkpoint,
            averaged if the run averages.
        out: the directory to make.
        form: "official" for `torch.save`, "safetensors" for the same state dicts without PyTorch.
        precision: of every tensor.

    Raises:
        ConversionError: if the released code cannot hold the model, or a file cannot be written.
        WeightsError: if `directory` cannot be read.
        FileExistsError: if `out` exists.
    """
    require_new(out)
    write = writer(form)
    weights = open_weights(directory)
    reasons = inexpressible(weights.config.flashface)
    if reasons:
        raise ConversionError(f"{directory} cannot be exported: {'; and '.join(reasons)}.")
    networks = build_system(weights.config).parts()
    held = _held(weights, networks)
    tables = {name: TABLES[name](getattr(weights.config, name)) for name in held}
    files = [file for file in FILES if file.parts[0] in held]
    require_space(out, _bytes(weights, files, tables, networks, form, precision))
    with atomic_directory(out) as draft:
        for file in files:
            state: State = {}
            for part in file.parts:
                if part in held:
                    state |= _part_state(weights, part, tables[part], networks[part], precision)
            print(f"writing {file.name(form)}: {len(state)} tensors")
            write(state, draft / file.name(form))
        notes = _write_vocabulary(weights, draft / VOCABULARY)
        written = sorted(path.name for path in draft.iterdir())
    for note in [*_left_out(weights, held), *notes, *settings_to_tell(weights.config)]:
        print(f"note: {note}")
    for name in written:
        print(f"wrote {out / name}")


def _held(weights: WeightsDirectory, networks: dict[str, Network]) -> list[str]:
    """The parts that a directory has and that have tensors; the U-Nets must be there."""
    return [
        name
        for name, network in networks.items()
        if jax.tree.leaves(network.shapes) and (name == "flashface" or weights.holds(name))
    ]


def empty_state(table: Table, network: Network) -> State:
    """The state dict of one part from its shapes alone; its arrays take no memory."""
    shapes = {name: leaf.shape for name, leaf in flatten(network.shapes).items()}
    return table.export(
        lambda name: np.broadcast_to(np.float32(0), shapes[name]), {}, lambda key, x: x
    )


def _bytes(
    weights: WeightsDirectory,
    files: list[ReleasedFile],
    tables: dict[str, Table],
    networks: dict[str, Network],
    form: Form,
    precision: Precision,
) -> int:
    """Bytes that the files will take: repeated tensors once where `torch.save` writes them."""
    numbers = 0
    for part in (part for file in files for part in file.parts if part in tables):
        arrays = list(empty_state(tables[part], networks[part]).values())
        unique = {id(x): x for x in arrays}.values() if form == "official" else arrays
        numbers += sum(x.size for x in unique)
        kept = unused_path(weights.path, part)
        if form == "official" and kept.exists():
            numbers += kept.stat().st_size // 4
    return numbers * (4 if precision == "float32" else 2)


def _part_state(
    weights: WeightsDirectory, part: str, table: Table, network: Network, precision: Precision
) -> State:
    """All tensors of one part; each parameter is gone from memory once it is one of them."""
    layout = {key: x.shape for key, x in empty_state(table, network).items() if key in table.fills}
    unused = read_unused(unused_path(weights.path, part), layout)
    params = flatten(weights.params(part, network))
    with tqdm(total=len(params), desc=part, unit="tensor") as bar:

        def read(name: str) -> np.ndarray:
            bar.update()
            return np.asarray(params.pop(name))

        return table.export(read, unused, lambda key, x: in_precision(key, x, precision))


def _write_vocabulary(weights: WeightsDirectory, path: Path) -> list[str]:
    """Write the tokenizer's file; returns what to say if that is not possible."""
    if not (weights.path / "tokenizer").exists():
        return [f"no {path.name}: {weights.path} has no tokenizer"]
    try:
        tokenizer = weights.tokenizer()
    except ValueError as error:
        raise ConversionError(str(error)) from error
    try:
        write_clip_vocabulary(tokenizer, path)
    except ValueError as error:
        return [f"no {path.name}: {error}"]
    return []


def _left_out(weights: WeightsDirectory, held: list[str]) -> list[str]:
    """Say which released files or parts of them are missing, and why."""
    said = []
    if isinstance(weights.config.autoencoder, PatchCosinesConfig):
        said.append(
            f"no {FILES[1].stem}: the model works on cosines of patches, which the released code "
            "does not know, instead of an autoencoder's latents"
        )
    elif "autoencoder" not in held:
        said.append(f"no {FILES[1].stem}: {weights.path} has no autoencoder")
    if "text_tower" not in held:
        said.append(f"no {FILES[2].stem}: {weights.path} has no text tower")
        return said
    lacking = {"visual.*": "image tower"} if "image_tower" not in held else {}
    if weights.config.text_tower.embedding is None:
        lacking["textual.head"] = "projection to the joint embedding"
    for key, what in lacking.items():
        said.append(
            f"{FILES[2].stem} has no {key}: {weights.path} has no {what}; the released code loads "
            "it all the same, and does not use that"
        )
    return said
