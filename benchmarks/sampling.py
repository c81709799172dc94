"""Time and memory of sampling at the released model's widths, beside the released code if given.

    python benchmarks/sampling.py --size 384 [--official PATH] [--whole] [--batch 1 4]

Random weights serve: nothing here depends on what they are. Reported are one guided step with all
three branches (the ReferenceNet's pass included, compilation not), its arithmetic and share of what
a large matmul reaches on the same device, and with --whole an image from start to end. --official
names a clone of the released code; it runs the same step on the same weights, settings and threads,
in turn with ours, and both results are compared. Needs 8 GB of memory in float32, 15 with
--official. On Linux, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 helps a CPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashface_jax.common.compilation import compiler_options
from flashface_jax.diffusion.guidance import Guidance
from flashface_jax.diffusion.sampling import (
    Conditioning,
    Evaluation,
    ReferenceLatents,
    guided_noise,
    plan_sampling,
)
from flashface_jax.diffusion.schedule import ScheduleConfig, noise_levels, visited_levels
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.models.attention.attend import BlockedAttention
from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import network
from flashface_jax.sampling.pipeline import cast_params
from flashface_jax.sampling.program import RequestBatch, Sampler, make_generate
from flashface_jax.weights.system import SystemConfig, build_system, sampling_plan

SCHEDULE = ScheduleConfig()
STEPS, LAUNCHED = 50, 20  # the step that is timed comes after the launch of reference guidance
# Every product in plain sight of XLA's count of them.
PLAIN_ATTENTION = BlockedAttention(max_logits=1 << 62, head_by_head=False)


@dataclass(frozen=True)
class Inputs:
    """What one guided step takes, in NumPy, channels last."""

    x: np.ndarray
    mask: np.ndarray
    prompt: np.ndarray
    negative: np.ndarray
    references: np.ndarray


def draw_inputs(height: int, width: int, batch: int, references: int) -> Inputs:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    mask = np.zeros((batch, height, width, 1), np.float32)
    mask[:, height // 5 : height // 2, width // 3 : 2 * width // 3] = 1
    return Inputs(
        normal(batch, height, width, 4),
        mask,
        np.repeat(normal(1, 77, 768), batch, axis=0),
        np.repeat(normal(1, 77, 768), batch, axis=0),
        normal(references, 28, 28, 4),
    )


def guided_step(compute: Compute) -> Callable[..., jax.Array]:
    """(params, inputs, step) -> x_0 as the guided prediction gives it."""
    part = network(lambda keys: FlashFace(FlashFaceConfig(), compute, keys))

    def run(params: Any, inputs: dict[str, jax.Array], step: Evaluation) -> jax.Array:
        references, x = inputs["references"], inputs["x"]
        conditioning = Conditioning(
            prompt=inputs["prompt"],
            negative=inputs["negative"],
            references=ReferenceLatents(references[None], inputs["negative"][:1]),
            reference_weight=jnp.ones((1, len(references))),
            person_share=jnp.ones((1, 1)),
            condition=inputs["mask"],
        )
        index = jnp.asarray(LAUNCHED)
        noise = guided_noise(part.bind(params), conditioning, x, index, step, "noise")
        sigma = step.timestep_sigma
        return (x - sigma * noise) / jnp.sqrt(1 - sigma**2)

    return run


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def matmul_rate(dtype: jnp.dtype) -> float:
    """FLOP/s of a large matmul, the best of several."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((side, side), dtype)
    multiply = jax.jit(lambda x: x @ x)
    multiply(x).block_until_ready()
    best = min(seconds(lambda: multiply(x).block_until_ready()) for _ in range(10))
    return 2 * side**3 / best


def random_params(dtype: jnp.dtype) -> Any:
    """Parameters of both networks, uniform and small."""
    part = network(lambda keys: FlashFace(FlashFaceConfig(), Compute(), keys))
    key = jax.random.key(0)
    return cast_params(
        jax.tree.map(
            lambda leaf: 0.02 * jax.random.uniform(key, leaf.shape, minval=-1.0), part.shapes
        ),
        dtype,
    )


def time_step(options: argparse.Namespace, batch: int, params: Any, released: Any) -> None:
    """Print what one guided step takes."""
    dtype = jnp.dtype(options.precision)
    inputs = draw_inputs(options.height // 8, options.width // 8, batch, options.references)
    levels = noise_levels(SCHEDULE)
    plan = plan_sampling(levels, visited_levels(levels, STEPS), Guidance())
    step = jax.tree.map(lambda values: values[LAUNCHED], plan.evaluations)
    arrays = jax.tree.map(jnp.asarray, vars(inputs))
    plain = Compute(dtype, PLAIN_ATTENTION, jax.lax.conv_general_dilated)
    arithmetic = jax.jit(guided_step(plain)).lower(params, arrays, step)
    flops = arithmetic.cost_analysis()["flops"]
    began = time.perf_counter()
    program = jax.jit(guided_step(Compute(dtype)), compiler_options=compiler_options())
    program = program.lower(params, arrays, step).compile()
    compiled = time.perf_counter() - began
    scratch = program.memory_analysis().temp_size_in_bytes
    ours = program(params, arrays, step).block_until_ready()
    theirs = None if released is None else released.guided_step(inputs, int(step.timestep))
    times: list[tuple[float, float]] = []
    for _ in range(options.repeats):
        other = 0.0
        if released is not None:
            other = seconds(lambda: released.guided_step(inputs, int(step.timestep)))
        own = seconds(lambda: program(params, arrays, step).block_until_ready())
        times.append((other, own))
    own = statistics.median(own for _, own in times)
    rate = matmul_rate(dtype)
    print(
        f"guided step, {options.width}x{options.height}, batch {batch}, {options.references} "
        f"references, {options.precision}: {1e3 * own:.0f} ms, {flops / 1e12:.2f} TFLOP, "
        f"{flops / own / 1e12:.2f} TFLOP/s = {flops / own / rate:.0%} of a large matmul's; "
        f"scratch {scratch / 2**30:.2f} GiB; compiled in {compiled:.0f} s"
    )
    if released is not None:
        ratios = sorted(other / own for other, own in times)
        difference = np.abs(np.asarray(ours, np.float32) - theirs).max() / theirs.std()
        median = statistics.median(other for other, _ in times)
        print(
            f"released code: {1e3 * median:.0f} ms; its time over ours: median "
            f"{statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f} in "
            f"{len(ratios)} pairs; results differ by {difference:.1e} of the std"
        )


def whole_request(options: argparse.Namespace, batch: int, crop: int) -> RequestBatch:
    """A request for images of one person; its prompts mean nothing."""
    return RequestBatch(
        tokens=jnp.ones((batch, 77), jnp.int32),
        negative_tokens=jnp.ones((1, 77), jnp.int32),
        references=jnp.zeros((1, options.references, crop, crop, 3), jnp.uint8),
        reference_weight=jnp.ones((1, options.references)),
        person_share=jnp.ones((1, 1)),
        face_mask=jnp.zeros((batch, options.height // 8, options.width // 8, 1)),
        seeds=jnp.arange(batch, dtype=jnp.uint32),
    )


def time_images(options: argparse.Namespace, batch: int, flashface: Any) -> None:
    """Print what whole images take: text, references, all steps, decoding.

    With --memory the program is compiled and not run, and no parameters are made.
    """
    dtype = jnp.dtype(options.precision)
    config = SystemConfig(image_tower=None)
    system = build_system(config, Compute(dtype))
    request = whole_request(options, batch, config.reference_size)
    plan = sampling_plan(SamplingConfig(steps=options.steps), config.schedule)
    generate = make_generate(Sampler(system, "noise", options.tile))
    shapes = {
        name: jax.eval_shape(lambda shapes: cast_params(shapes, dtype), part.shapes)
        for name, part in system.parts().items()
    }
    analysis = generate.lower(shapes, request, plan).compile().memory_analysis()
    held, scratch = (
        f"{size / 2**30:.2f} GiB"
        for size in (analysis.argument_size_in_bytes, analysis.temp_size_in_bytes)
    )
    what = f"{batch} images of {options.width}x{options.height}, {options.precision}"
    if options.memory:
        print(f"{what}: parameters {held}, scratch {scratch}")
        return
    key = jax.random.key(1)
    drawn = {name: part.init(key) for name, part in system.parts().items() if name != "flashface"}
    params = {**cast_params(drawn, dtype), "flashface": flashface}
    generate(params, request, plan).block_until_ready()
    took = seconds(lambda: generate(params, request, plan).block_until_ready())
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    print(
        f"{what}, {options.steps} steps: {took:.1f} s, {batch / took:.3g} images/s; parameters "
        f"{held}, scratch {scratch}" + (f", peak {peak / 2**30:.2f} GiB" if peak else "")
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", default="384", help="side in pixels, or width x height (default: %(default)s)")
    add("--references", type=int, default=4, help="reference faces (default: %(default)s)")
    add("--batch", type=int, nargs="+", default=[1], help="images at a time (default: 1)")
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    add("--repeats", type=int, default=5, help="times each is measured (default: %(default)s)")
    add("--official", type=Path, metavar="PATH", help="clone of the released code to run beside")
    add("--threads", type=int, help="threads of the released code on a CPU (default: all cores)")
    add("--whole", action="store_true", help="time whole images, too")
    add("--steps", type=int, default=STEPS, help="steps of a whole image (default: %(default)s)")
    add("--tile", type=int, default=0, help="decode whole images in tiles of so many latents")
    add("--memory", action="store_true", help="only compile whole images, and print their memory")
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    options.width, options.height = int(width), int(height or width)
    print(f"{jax.devices()[0].device_kind}, {jax.device_count()} device(s)")
    dtype, released = jnp.dtype(options.precision), None
    if options.memory:
        for batch in options.batch:
            time_images(options, batch, None)
        return
    if options.official is None:
        params = random_params(dtype)
    else:
        from released_code import ReleasedCode  # noqa: PLC0415  (needs PyTorch)

        released = ReleasedCode(options.official, options.precision, options.threads)
        params = cast_params(released.convert(), dtype)
    for batch in options.batch:
        time_step(options, batch, params, released)
        if options.whole:
            time_images(options, batch, params)


if __name__ == "__main__":
    main()
