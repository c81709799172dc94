"""The conversion commands: files in, one weights directory out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from flashface_jax.common.files import atomic_directory, require_space
from flashface_jax.convert.files.tensors import Tensors
from flashface_jax.convert.files.torch_file import TorchFile, UnreadableError
from flashface_jax.convert.official import (
    autoencoder_table,
    flashface_table,
    image_tower_table,
    infer_autoencoder_config,
    infer_flashface_config,
    infer_image_tower_config,
    infer_text_tower_config,
    text_tower_table,
)
from flashface_jax.convert.sizes import Shapes
from flashface_jax.convert.table import ConversionError, Table, summary
from flashface_jax.convert.unused import find_unused, unused_path, write_unused
from flashface_jax.models.network import Network, flatten
from flashface_jax.weights.directory import write_config, write_params
from flashface_jax.weights.system import SystemConfig, build_system
from flashface_jax.weights.tokenizer import convert_clip_vocabulary


@dataclass(frozen=True)
class OfficialFiles:
    """The released files, and the head counts that they do not tell.

    Attributes:
        unet: `flashface.ckpt`.
        vae: `sd-v1-vae.pth`.
        clip: `openai-clip-vit-large-14.pth`.
        tokenizer: `bpe_simple_vocab_16e6.txt.gz`.
        num_heads: U-Net heads; 8 if neither this nor `head_channels` is given.
        head_channels: channels of a U-Net head.
        clip_text_heads: None for width / 64.
        clip_image_heads: None for width / 64.
    """

    unet: Path
    vae: Path | None = None
    clip: Path | None = None
    tokenizer: Path | None = None
    num_heads: int | None = None
    head_channels: int | None = None
    clip_text_heads: int | None = None
    clip_image_heads: int | None = None


@dataclass(frozen=True)
class Part:
    """One network of the system, and where its tensors come from."""

    name: str
    file: Tensors
    config: Any
    table: Table


def convert_official(files: OfficialFiles, out: Path) -> None:
    """Write the weights directory `out`; all files are checked before anything is written.

    Raises:
        ConversionError: with everything that is wrong with any file.
        FileExistsError: if `out` exists.
    """
    parts = _inspect(files)
    config = SystemConfig(**{part.name: part.config for part in parts})
    tokenizer = files.tokenizer
    write_weights(
        parts,
        config,
        build_system(config).parts(),
        None
        if tokenizer is None
        else lambda target: _convert_tokenizer(tokenizer, target, config.text_tower.length),
        out,
    )


def write_weights(
    parts: list[Part],
    config: SystemConfig,
    networks: dict[str, Network],
    write_tokenizer: Callable[[Path], None] | None,
    out: Path,
) -> None:
    """Check all parts together, then write the weights directory `out`, whole or not at all.

    Args:
        parts: the networks that are written.
        config: of the whole system.
        networks: the structure of each part, by name.
        write_tokenizer: fills the folder that it is given; None for no tokenizer.
        out: directory to create.

    Raises:
        ConversionError: with everything that is wrong with any part.
        FileExistsError: if `out` exists.
    """
    _check(parts, networks)
    _check_space(out, [networks[part.name] for part in parts])
    with atomic_directory(out) as draft:
        write_config(draft, config)
        if write_tokenizer is not None:
            write_tokenizer(draft / "tokenizer")
        for part in parts:
            _write_part(part, networks[part.name], draft)
            _write_unused(part, draft)
    for part in parts:
        for dead in part.table.left_out(part.file.shapes):
            print(f"{part.name}: left out {dead.prefix}*: {dead.reason}")
    print(f"wrote {out}")


def _inspect(files: OfficialFiles) -> list[Part]:
    """Open every file and read its configuration off it; all bad files are reported together."""
    heads = 8 if files.num_heads is None and files.head_channels is None else files.num_heads
    recipes: list[tuple[str, Path | None, Callable[[Shapes], Any], Callable[[Any], Table]]] = [
        (
            "flashface",
            files.unet,
            lambda shapes: infer_flashface_config(shapes, heads, files.head_channels),
            flashface_table,
        ),
        ("autoencoder", files.vae, infer_autoencoder_config, autoencoder_table),
        (
            "text_tower",
            files.clip,
            lambda shapes: infer_text_tower_config(shapes, files.clip_text_heads),
            text_tower_table,
        ),
        (
            "image_tower",
            files.clip,
            lambda shapes: infer_image_tower_config(shapes, files.clip_image_heads),
            image_tower_table,
        ),
    ]
    parts, errors = [], []
    for name, path, infer, table in recipes:
        if path is None:
            continue
        try:
            file = TorchFile(path)
            config = infer(file.shapes)
            parts.append(Part(name, file, config, table(config)))
        except UnreadableError as error:
            errors.append(str(error))
        except ValueError as error:  # also what a configuration says of impossible sizes
            errors.append(f"{path} cannot be converted: {error}")
    if errors:
        raise ConversionError("\n".join(dict.fromkeys(errors)))
    return parts


def _check(parts: list[Part], networks: dict[str, Network]) -> None:
    """Raise a ConversionError with all problems of all parts."""
    errors = []
    for part in parts:
        target = {name: leaf.shape for name, leaf in flatten(networks[part.name].shapes).items()}
        problems = part.table.problems(part.file.shapes, target)
        if problems:
            errors.append(f"{part.file.path} does not fit: {summary(problems)}")
    if errors:
        raise ConversionError("\n".join(errors))


def _check_space(out: Path, networks: list[Network]) -> None:
    """Raise OSError if the disk cannot hold the parameters."""
    leaves = jax.tree.leaves([network.shapes for network in networks])
    require_space(out, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves))


def _write_part(part: Part, network: Network, draft: Path) -> None:
    """Convert and save one network; its parameters are gone from memory afterwards."""
    with tqdm(total=len(part.table.entries), desc=part.name, unit="tensor") as bar:
        params = part.table.convert(part.file.read, network.shapes, bar.update)
    count = sum(leaf.size for leaf in flatten(params).values())
    print(f"{part.name}: writing {count:,} parameters")
    write_params(draft, part.name, params)


def _write_unused(part: Part, draft: Path) -> None:
    """Keep what the network does not use and an export could not make up."""
    if not part.table.fills:
        return
    with tqdm(total=len(part.table.fills), desc=f"{part.name}, unused", unit="tensor") as bar:
        unused = find_unused(part.table, part.file.shapes, part.file.read, bar.update)
    if unused:
        path = unused_path(draft, part.name)
        write_unused(path, unused)
        print(f"{part.name}: unused, kept for export in {path.relative_to(draft)}: {len(unused)}")


def _convert_tokenizer(source: Path, target: Path, length: int) -> None:
    try:
        convert_clip_vocabulary(source, target, length)
    except ValueError as error:
        raise ConversionError(str(error)) from error
