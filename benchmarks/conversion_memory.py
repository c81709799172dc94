"""How much memory converting checkpoints and exporting them again takes, at full size.

    python benchmarks/conversion_memory.py /tmp/conversion
    python benchmarks/conversion_memory.py /tmp/conversion --model stable-diffusion

Writes checkpoints with drawn weights and the released files' keys and shapes (about 10 GB), or a
single file with those of Stable Diffusion 1.5. Runs the conversion command on them and the export
command on what it wrote, each in a process of its own, and compares those processes' peak resident
memory with the bytes of the unique tensors that were read; for Stable Diffusion, which is read
several times over, with the bytes of the parameters. Of the released files the exported tensors
must be the written ones, bit for bit. Needs about 30 GB of disk; the folder is removed afterwards.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import torch
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from flashface_jax.models.network import flatten  # noqa: E402
from flashface_jax.weights.directory import WeightsDirectory  # noqa: E402
from flashface_jax.weights.system import build_system  # noqa: E402
from tests.convert.tiny_stable_diffusion import original_full_size  # noqa: E402
from tests.recorded import drawn, layout  # noqa: E402

BOUND = 1.5
FILES = {"unet": "flashface.ckpt", "vae": "sd-v1-vae.pth", "clip": "openai-clip-vit-large-14.pth"}


def state_dict(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Draw every tensor; the denoiser's two names share one, as in the module that was saved."""
    state: dict[str, torch.Tensor] = {}
    for key in sorted(shapes, key=lambda key: not key.startswith("ori_")):
        alias = state.get(f"ori_{key}")
        if alias is not None and list(alias.shape) == shapes[key]:
            state[key] = alias
        else:
            state[key] = torch.from_numpy(np.asarray(drawn(key, tuple(shapes[key]), seed=7)))
    return {key: state[key] for key in shapes}


def write_checkpoints(folder: Path) -> tuple[int, list[str]]:
    """Write the released files; returns the bytes of their unique tensors, and the options."""
    unique = 0
    for name, shapes in layout("official_layout").items():
        state = state_dict(shapes)
        torch.save(state, folder / FILES[name])
        storages = {tensor.data_ptr(): tensor.nbytes for tensor in state.values()}
        unique += sum(storages.values())
    return unique, ["official", *(f"--{name}={folder / file}" for name, file in FILES.items())]


def resident(pid: int) -> dict[str, int]:
    """Resident bytes of a process by kind: all, anonymous, and pages of mapped files."""
    wanted = {"VmRSS": "all", "RssAnon": "anonymous", "RssFile": "mapped"}
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields.get(key, "0").split()[0]) * 1024 for key, kind in wanted.items()}


def write_stable_diffusion(folder: Path) -> tuple[int, list[str]]:
    """Write a single file and a tokenizer as large as the text tower's; returns the same."""
    state = {
        key: torch.from_numpy(np.asarray(drawn(key, tuple(value.shape), seed=7)))
        for part in original_full_size()
        for key, value in part.items()
    }
    save_file(state, folder / "v1-5.safetensors")
    tokens = [f"{i}</w>" for i in range(49_406)] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(tokens)})
    )
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text('{"model_max_length": 77}')
    source, tokenizer = folder / "v1-5.safetensors", folder / "tokenizer"
    unique = sum(tensor.nbytes for tensor in state.values())
    return unique, ["stable-diffusion", f"--from={source}", f"--tokenizer={tokenizer}"]


def run(*arguments: str) -> tuple[dict[str, int], float]:
    """Run a conversion command; returns its peak memory by kind, and the seconds it took."""
    command = [sys.executable, "-m", "flashface_jax.convert", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=REPOSITORY)
    peaks = {"all": 0, "anonymous": 0, "mapped": 0}
    while True:
        finished, status, usage = os.wait4(process.pid, os.WNOHANG)
        if finished:
            break
        peaks = {kind: max(peaks[kind], now) for kind, now in resident(process.pid).items()}
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed with exit code {process.returncode}")
    peaks["all"] = usage.ru_maxrss * 1024
    return peaks, time.perf_counter() - start


def saved_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a saved tree by name, from its metadata."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(checkpoint.absolute()).item_metadata.tree
    return {name: tuple(leaf.shape) for name, leaf in flatten(tree).items()}


def written_parameters(folder: Path) -> int:
    """Compare the written shapes with the networks'; returns the number of parameters."""
    directory = WeightsDirectory.open(folder / "weights")
    total = 0
    for name, network in build_system(directory.config).parts().items():
        written = saved_shapes(directory.path / "params" / name)
        wanted = {key: tuple(leaf.shape) for key, leaf in flatten(network.shapes).items()}
        if written != wanted:
            raise SystemExit(f"{name} was not written whole")
        total += sum(math.prod(shape) for shape in written.values())
    return total


def require_same(one: Path, other: Path) -> None:
    """Compare two checkpoints bit by bit."""
    states = [torch.load(path, mmap=True, weights_only=True) for path in (one, other)]
    if states[0].keys() != states[1].keys():
        raise SystemExit(f"{other} has other keys than {one}")
    for key, value in states[0].items():
        if not torch.equal(value.view(torch.int32), states[1][key].view(torch.int32)):
            raise SystemExit(f"{other}: {key} did not come back as it was")


def report(command: str, peaks: dict[str, int], basis: int, seconds: float) -> float:
    """Print the peaks; returns the largest as a multiple of the basis."""
    for kind, peak in peaks.items():
        print(f"{command}: peak resident, {kind}: {peak / 1e9:.2f} GB = {peak / basis:.2f} x")
    print(f"{command}: {seconds:.0f} s")
    return peaks["all"] / basis


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder to create and to remove again")
    parser.add_argument("--model", choices=["official", "stable-diffusion"], default="official")
    options = parser.parse_args()
    folder, official = options.folder, options.model == "official"
    folder.mkdir(parents=True)
    try:
        unique, arguments = (write_checkpoints if official else write_stable_diffusion)(folder)
        weights, out = str(folder / "weights"), str(folder / "exported")
        converted = run(*arguments, "--out", weights)
        parameters = written_parameters(folder)
        exported = run("export", weights, "--to", "official", "--out", out)
        for file in FILES.values() if official else ():
            require_same(folder / file, folder / "exported" / file)
    finally:
        shutil.rmtree(folder)
    basis, what = (unique, "unique tensors") if official else (4 * parameters, "written")
    print(f"{parameters:,} parameters; {what} {basis / 1e9:.2f} GB")
    ratios = {
        "ratio": report(options.model, converted[0], basis, converted[1]),
        "export_ratio": report("export", exported[0], basis, exported[1]),
    }
    print(json.dumps({name: round(r, 3) for name, r in ratios.items()} | {"bound": BOUND}))
    sys.exit(max(ratios.values()) > BOUND)


if __name__ == "__main__":
    main()
