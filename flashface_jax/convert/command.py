"""Convert checkpoints between PyTorch and JAX, in both directions."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from flashface_jax.common.command_line import Parser, UsageError, run_command
from flashface_jax.common.files import require_exists, require_new

OFFICIAL_HELP = """\
Turn the files that FlashFace's authors released into one directory that flashface sample opens.

The four files are those of the release's cache folder. Widths and depths are read off the files.
The directory holds config.json, Orbax parameters, the tokenizer, and apart what of the files is not
used, for `export` to restore; about 9 GB in float32.
Leave a file out, and the directory lacks that part (it can still be inspected or trained from).

example:
  flashface convert official --unet flashface.ckpt --vae sd-v1-vae.pth \\
      --clip openai-clip-vit-large-14.pth --tokenizer bpe_simple_vocab_16e6.txt.gz \\
      --out weights/flashface
"""

STABLE_DIFFUSION_HELP = """\
Turn Stable Diffusion 1.5, or any fine-tune of it, into a directory from which FlashFace is trained.

Its U-Net becomes the denoiser and the ReferenceNet; each reference attention starts as the block's
self-attention, and the face mask's input channel at zero (paper, section 3). What is written draws
no likeness before it is trained. The directory holds config.json, Orbax parameters and the
tokenizer; about 8 GB in float32. Stable Diffusion 2, XL and inpainting models are refused.

--from is a diffusers folder (unet, vae, text_encoder, tokenizer; .safetensors or .bin, also
in shards or of half precision only), or one file in the original layout (.safetensors or .ckpt).

examples:
  flashface convert stable-diffusion --from stable-diffusion-v1-5 --out weights/sd15
  flashface convert stable-diffusion --from v1-5-pruned.safetensors \\
      --tokenizer bpe_simple_vocab_16e6.txt.gz --out weights/sd15
"""

EXPORT_HELP = """\
Turn a weights directory or a training run back into the files that FlashFace's authors released, so
that their code and its ComfyUI nodes load them.

Of a run the newest checkpoint is taken, averaged if the run averages. What the released code wants
but never uses is restored from the converted files, bit for bit; for a model that did not come from
them it is filled in. A model that the released code cannot hold is refused; what its files do not
say (head counts, sizes other than the released) is printed.

  --to official      flashface.ckpt, sd-v1-vae.pth, openai-clip-vit-large-14.pth (torch.save) and
                     bpe_simple_vocab_16e6.txt.gz; about 9 GB in float32. Put them into the
                     cache folder of the released code.
  --to safetensors   the same with .safetensors for .ckpt and .pth; needs no PyTorch. Tensors that
                     the released layout has twice take their space twice: about 13 GB.
  --to lora          of a run that trains LoRA the low-rank updates alone, one .safetensors file
                     in kohya's layout, for Stable Diffusion's tools. The other forms hold such
                     a run's weights with the updates added.

examples:
  flashface convert export runs/mine --to official --dtype float16 --out released
  flashface convert export runs/lora --to lora --out lora/mine.safetensors
"""


def make_parser(prog: str) -> Parser:
    """Describe the command line; `run` of what it parses does what is asked."""
    parser = Parser(prog=prog, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_official(commands)
    _add_stable_diffusion(commands)
    _add_export(commands)
    return parser


def _add_official(commands: Any) -> None:
    """Describe `official`."""
    official = commands.add_parser(
        "official",
        help="the released PyTorch files -> a weights directory",
        description=OFFICIAL_HELP,
    )
    official.set_defaults(run=_official)
    file = official.add_argument
    file("--unet", type=Path, required=True, metavar="FILE", help="flashface.ckpt")
    file("--vae", type=Path, metavar="FILE", help="sd-v1-vae.pth")
    file("--clip", type=Path, metavar="FILE", help="openai-clip-vit-large-14.pth")
    file("--tokenizer", type=Path, metavar="FILE", help="bpe_simple_vocab_16e6.txt.gz")
    file("--out", type=Path, required=True, metavar="DIR", help="directory to create")
    heads = official.add_argument_group("head counts, which no file says")
    heads.add_argument("--num-heads", type=int, metavar="N", help="U-Net heads (default: 8)")
    heads.add_argument("--head-channels", type=int, metavar="N", help="or channels of a U-Net head")
    heads.add_argument(
        "--clip-text-heads", type=int, metavar="N", help="default: width / 64, as in every CLIP"
    )
    heads.add_argument(
        "--clip-image-heads", type=int, metavar="N", help="default: width / 64, as in every CLIP"
    )


def _add_stable_diffusion(commands: Any) -> None:
    """Describe `stable-diffusion`."""
    parser = commands.add_parser(
        "stable-diffusion",
        help="Stable Diffusion 1.5 -> a weights directory to train from",
        description=STABLE_DIFFUSION_HELP,
    )
    parser.set_defaults(run=_stable_diffusion)
    option = parser.add_argument
    option("--from", dest="source", type=Path, required=True, metavar="PATH", help="folder or file")
    option("--out", type=Path, required=True, metavar="DIR", help="directory to create")
    option(
        "--tokenizer",
        type=Path,
        metavar="PATH",
        help="bpe_simple_vocab_16e6.txt.gz or a tokenizer folder (default: the diffusers folder's)",
    )
    option(
        "--num-heads",
        type=int,
        metavar="N",
        help="U-Net heads (default: what the diffusers folder says, otherwise 8)",
    )
    option(
        "--clip-text-heads",
        type=int,
        metavar="N",
        help="default: what the diffusers folder says, otherwise width / 64",
    )


def _add_export(commands: Any) -> None:
    """Describe `export`."""
    export = commands.add_parser(
        "export",
        help="a weights directory or a run -> files that the released code or others load",
        description=EXPORT_HELP,
    )
    export.set_defaults(run=_export)
    add = export.add_argument
    add("directory", type=Path, metavar="DIR", help="converted weights, or a run's workdir")
    forms = ("official", "safetensors", "lora")
    add("--to", required=True, choices=forms, help="what to write")
    add("--out", type=Path, required=True, metavar="OUT", help="directory or file to create")
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of every tensor; 16 bits halve the files and lose digits (default: float32)",
    )


def _official(options: argparse.Namespace) -> None:
    files = (options.unet, options.vae, options.clip, options.tokenizer)
    for file in files:
        if file is not None:
            require_exists(file, "one of the files that FlashFace's authors released")
    from flashface_jax.convert.run import OfficialFiles, convert_official  # noqa: PLC0415  (slow)

    named = {field.name: getattr(options, field.name) for field in fields(OfficialFiles)}
    convert_official(OfficialFiles(**named), options.out)


def _stable_diffusion(options: argparse.Namespace) -> None:
    require_exists(options.source, "a diffusers folder, or one file in the original layout")
    if options.source.is_file() and not options.tokenizer:
        raise UsageError("--from is one file, which holds no tokenizer: name one with --tokenizer.")
    from flashface_jax.convert.stable_diffusion.run import (  # noqa: PLC0415
        convert_stable_diffusion,
    )

    convert_stable_diffusion(
        options.source,
        options.out,
        options.tokenizer,
        options.num_heads,
        options.clip_text_heads,
    )


def _export(options: argparse.Namespace) -> None:
    require_exists(options.directory, "converted weights, or a training run's directory")
    from flashface_jax.convert.export import export  # noqa: PLC0415
    from flashface_jax.convert.lora import export_run  # noqa: PLC0415

    if options.to == "lora":
        export_run(options.directory, options.out, options.dtype)
        return
    export(options.directory, options.out, options.to, options.dtype)


def main(arguments: Sequence[str] | None = None, prog: str = "flashface convert") -> int:
    """Run the command line; 0 on success, 1 with one message on stderr otherwise."""
    return run_command(partial(_run, arguments, prog), on_stop="nothing was written.")


def _run(arguments: Sequence[str] | None, prog: str) -> None:
    options = make_parser(prog).parse_args(arguments)
    require_new(options.out)
    options.run(options)
