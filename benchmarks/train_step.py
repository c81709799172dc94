"""Time of a train step on a CPU, with and without huge pages for XLA's scratch memory.

    python benchmarks/train_step.py [--config configs/synthetic.py] [--steps 30]

Each case runs in a process of its own, since glibc reads its settings at the start. Prints
milliseconds and page faults a step, samples/s, and the ratio of the two times.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flashface_jax.demo import load_config
from flashface_jax.models.blocks import Compute
from flashface_jax.system import build_system
from flashface_jax.training.data import sample_shape
from flashface_jax.training.optimizer import build_optimizer
from flashface_jax.training.state import create_state
from flashface_jax.training.step import Batch, make_train_step

# As in the Makefile.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def measure(config_path: Path, steps: int) -> dict[str, float]:
    """Time the step on random data."""
    config = load_config(config_path)
    shape, rows = sample_shape(config), config.batch_size
    most = config.data.draws.max_references
    rng, latent = np.random.default_rng(0), shape.image_size // shape.stride
    size, crop = shape.image_size, shape.reference_size
    words = config.system.text_tower.length
    batch = Batch(
        target=jnp.asarray(rng.integers(0, 255, (rows, size, size, 3), np.uint8)),
        face_mask=jnp.zeros((rows, latent, latent, 1), jnp.uint8),
        tokens=jnp.zeros((rows, words), jnp.int32),
        references=jnp.asarray(rng.integers(0, 255, (rows, most, crop, crop, 3), np.uint8)),
        reference_valid=jnp.ones((rows, most), bool),
    )
    system = build_system(config.system, Compute(jnp.dtype(config.compute_dtype)))
    optimizer = build_optimizer(config.optimizer, config.steps)
    averages = config.optimizer.ema_decay > 0
    state = create_state(system, config.trainable, optimizer, averages, config.seed)
    empty = jnp.zeros((1, words), jnp.int32)
    step = jax.jit(make_train_step(system, optimizer, config, empty), donate_argnums=0)
    for _ in range(3):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - began) / steps
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"ms": 1e3 * seconds, "samples_per_second": rows / seconds, "faults": faults / steps}


def main() -> None:
    """Run both cases, twice each in turn, and print the better of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/synthetic.py"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", action="store_true", help="measure in this process, print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.config, options.steps)))
        return
    command = [sys.executable, *sys.argv, "--only"]
    cases = {"as glibc comes": "", "huge pages": HUGE_PAGES}
    best: dict[str, dict[str, float]] = {}
    for _ in range(2):
        for name, tunables in cases.items():
            environment = {**os.environ, "GLIBC_TUNABLES": tunables}
            said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            found = json.loads(said.stdout)
            best[name] = min(best.get(name, found), found, key=lambda case: case["ms"])
    for name, case in best.items():
        print(
            f"{name:15s} {case['ms']:6.0f} ms  {case['samples_per_second']:5.0f} samples/s  "
            f"{case['faults']:8.0f} page faults a step"
        )
    before, after = (best[name]["ms"] for name in cases)
    print(f"ratio {before / after:.2f}")


if __name__ == "__main__":
    main()
