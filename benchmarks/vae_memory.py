"""Memory and time of decoding at once and in tiles, at Stable Diffusion 1.5's widths.

    python benchmarks/vae_memory.py [--tile 32]

Memory is the scratch memory of the compiled program in float32, read off without running it;
parameters and images come on top. Time is the better of two runs, of a size that a CPU can run.
Prints a table in Markdown.
"""

import argparse
import time

import jax
import numpy as np

from flashface_jax.models.autoencoder.tiled_decoding import decode_in_tiles
from flashface_jax.models.autoencoder.vae import AutoencoderKL, AutoencoderKLConfig
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import Params, network

CONFIG = AutoencoderKLConfig()
NETWORK = network(lambda keys: AutoencoderKL(CONFIG, Compute(), keys))
SIZES = (512, 768, 1024, 1536)
BATCHES = (1, 4)
TIMED_SIZE, TIMED_TILE = 256, 16


def programs(tile: int):
    """Decoding at once and in tiles, jitted."""

    def at_once(params: Params, latent: jax.Array) -> jax.Array:
        return NETWORK.bind(params).decode(latent)

    def in_tiles(params: Params, latent: jax.Array) -> jax.Array:
        return decode_in_tiles(NETWORK.bind(params), latent, tile)

    return jax.jit(at_once), jax.jit(in_tiles)


def latent_shape(batch: int, size: int) -> tuple[int, ...]:
    side = size // CONFIG.stride
    return (batch, side, side, CONFIG.latent_channels)


def scratch(program, batch: int, size: int) -> int:
    """Bytes of scratch memory."""
    latent = jax.ShapeDtypeStruct(latent_shape(batch, size), np.float32)
    compiled = program.lower(NETWORK.shapes, latent).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def seconds() -> list[float]:
    """Run both programs in turn, twice each after a first time."""
    params = NETWORK.init(jax.random.key(0))
    latent = jax.random.normal(jax.random.key(1), latent_shape(1, TIMED_SIZE))
    both = programs(TIMED_TILE)
    best = [np.inf, np.inf]
    for repeat in range(3):
        for i, program in enumerate(both):
            began = time.perf_counter()
            jax.block_until_ready(program(params, latent))
            if repeat:
                best[i] = min(best[i], time.perf_counter() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tile", type=int, default=32, help="latent positions")
    tile = parser.parse_args().tile
    print(f"| size and batch | decode | decode_in_tiles, tile {tile} | ratio |")
    print("|---|---|---|---|")
    for size in SIZES:
        for batch in BATCHES:
            whole, tiled = (scratch(program, batch, size) for program in programs(tile))
            sizes = f"{whole / 2**30:.2f} GiB | {tiled / 2**30:.2f} GiB"
            print(f"| {size}x{size}, batch {batch} | {sizes} | {whole / tiled:.1f} |")
    whole, tiled = seconds()
    times = f"{whole:.1f} s | {tiled:.1f} s (tile {TIMED_TILE}) | 1/{tiled / whole:.2f} |"
    print(f"| time at {TIMED_SIZE}x{TIMED_SIZE}, batch 1 | {times}")


if __name__ == "__main__":
    main()
