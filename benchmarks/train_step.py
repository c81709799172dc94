"""Time of a train step on random data, against what the device's matmuls reach.

    python benchmarks/train_step.py                                       # a CPU, the small network
    python benchmarks/train_step.py --config configs/flashface.py --batch 4 8      # a GPU or TPU

Every batch size runs in a process of its own. Prints milliseconds and images/s, the model FLOPs
utilisation against the matmul rate that the same process measured, the peak memory where the device
counts it, and how often the step was compiled, which must be once. On a CPU each case also runs
with huge pages for XLA's scratch memory, since glibc reads its settings at the start.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flashface_jax.planning.flops import count_flops
from flashface_jax.training.computation.batch import Batch
from flashface_jax.training.computation.program import Program, model_jaxpr
from flashface_jax.training.config import load_config
from flashface_jax.training.monitoring.telemetry import device_memory

# As in the Makefile.
HUGE_PAGES = "glibc.malloc.hugetlb=1"
CEILING_SIDES = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
WARM_UP = 3


def random_batch(program: Program) -> Batch:
    """A global batch of noise, every reference present."""
    rng = np.random.default_rng(0)

    def fill(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if shape.dtype == bool:
            return np.ones(shape.shape, bool)
        return rng.integers(0, 2 if shape.ndim == 2 else 255, shape.shape).astype(shape.dtype)

    return program.layout.place_rows(jax.tree.map(fill, program.batch_shapes()))


def matmul_ceiling(dtype: jnp.dtype) -> float:
    """FLOP/s that one device reaches on a large matmul of the dtype."""
    side, repeats = CEILING_SIDES[jax.default_backend()], 10
    x = jnp.ones((side, side), dtype)
    multiply = jax.jit(partial(jnp.matmul, preferred_element_type=dtype))
    best = float("inf")
    for _ in range(3):
        jax.block_until_ready(multiply(x, x))
        began = time.perf_counter()
        for _ in range(repeats):
            out = multiply(x, x)
        jax.block_until_ready(out)
        best = min(best, (time.perf_counter() - began) / repeats)
    return 2 * side**3 / best


def measure(path: Path, overrides: list[str], batch: int | None, steps: int) -> dict[str, float]:
    """Time the step on random data."""
    config = load_config(path, overrides)
    config = replace(config, batch_size=batch or config.batch_size)
    ceiling = matmul_ceiling(jnp.dtype(config.compute_dtype))
    flops = count_flops(model_jaxpr(config)).total
    program = Program.over(config)
    data, state = random_batch(program), program.fresh_state()
    step = program.step(np.zeros((1, config.system.text_tower.length), np.int32))
    began = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, data))
    compiling = time.perf_counter() - began
    for _ in range(WARM_UP):
        state, _ = step(state, data)
    jax.block_until_ready(state)
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, data)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - began) / steps
    devices = program.layout.mesh.size
    return {
        "on_cpu": jax.default_backend() == "cpu",
        "ms": 1e3 * seconds,
        "images_per_second": config.batch_size / seconds,
        "mfu": flops / seconds / (ceiling * devices),
        "tflop": flops / 1e12,
        "ceiling_tflops": ceiling / 1e12,
        "first_call_s": compiling,
        "compilations": step._cache_size(),
        "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / steps,
        **device_memory([device.memory_stats() for device in jax.local_devices()]),
    }


def in_another_process(arguments: list[str], tunables: str) -> dict[str, float]:
    """Measure one case."""
    command = [sys.executable, __file__, "--only", *arguments]
    said = subprocess.run(
        command,
        env={**os.environ, "GLIBC_TUNABLES": tunables},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(said.stdout.splitlines()[-1])


def show(name: str, case: dict[str, float]) -> None:
    """Print one case."""
    memory = f"  peak {case['memory_peak_gib']:.1f} GiB" if "memory_peak_gib" in case else ""
    print(
        f"{name:28s} {case['ms']:7.1f} ms  {case['images_per_second']:7.2f} images/s  "
        f"{case['mfu']:.0%} of {case['ceiling_tflops']:.2f} TFLOP/s{memory}  "
        f"{case['faults']:.0f} page faults a step, {case['compilations']:.0f} compilation"
    )


def main() -> None:
    """Run every case twice, in turn, and print the better of each."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text, allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=Path("configs/synthetic.py"))
    parser.add_argument("--batch", type=int, nargs="+", help="global batch sizes")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", action="store_true", help="measure in this process, print JSON")
    options, overrides = parser.parse_known_args()
    batches = options.batch or [None]
    if options.only:
        print(json.dumps(measure(options.config, overrides, batches[0], options.steps)))
        return
    # This process leaves devices alone: a second one could not have them.
    best: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for batch in batches:
            chosen = [f"--batch={batch}"] if batch else []
            same = [f"--config={options.config}", f"--steps={options.steps}", *chosen, *overrides]
            name = f"batch {batch}" if batch else "configured batch"
            for suffix, tunables in (("", ""), (", huge pages", HUGE_PAGES)):
                found = in_another_process(same, tunables)
                key = name + suffix
                best[key] = min(best.get(key, found), found, key=lambda case: case["ms"])
                if not found["on_cpu"]:
                    break
    for name, case in best.items():
        show(name, case)


if __name__ == "__main__":
    main()
