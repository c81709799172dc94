"""What each saving of the sampler is worth: a guided step with all of them, and without each.

    python benchmarks/sampling_savings.py [--size 384] [--rounds 3]

Released widths, random weights, four references, float32, all branches. Every variant is compiled
once; then all run in turn, and the median of the ratios to the full form within a round is printed.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from sampling import LAUNCHED, SCHEDULE, STEPS, draw_inputs, random_params

from flashface_jax.common.compilation import Options, compiler_options
from flashface_jax.diffusion import sampling as sampler
from flashface_jax.diffusion.guidance import TEXT_ONLY, Guidance, rescaled
from flashface_jax.diffusion.sampling import (
    Conditioning,
    Evaluation,
    ReferenceLatents,
    guided_noise,
    plan_sampling,
    track_references,
)
from flashface_jax.diffusion.schedule import noise_levels, visited_levels
from flashface_jax.models import blocks
from flashface_jax.models.attention.backends import ALL_HEADS
from flashface_jax.models.blocks import Compute
from flashface_jax.models.flashface import FlashFace, FlashFaceConfig
from flashface_jax.models.network import network

Run = Callable[[], Any]


def two_softmaxes(attend, query, own, reference, reference_weight, strength):
    """The released form: λ·Attn(q, [own, r]) + (1-λ)·Attn(q, own), for every row.

    Rows without references have λ = 0 there, and pay all the same.
    """
    rows = len(query)
    key, value = (
        jnp.concatenate([o, jnp.broadcast_to(r, (rows, *r.shape[1:]))], axis=1)
        for o, r in zip(own, reference, strict=True)
    )
    share = jnp.pad(strength[:, 0], (0, rows - len(strength)))[:, None, None, None]
    both, alone = attend(query, key, value).values, attend(query, *own).values
    return share * both + (1 - share) * alone


def three_whole_branches(predict, prompt, negative, step):
    """Guide with three branches that share nothing."""
    both, text, none = predict(jnp.stack([prompt, prompt, negative]), referenced=1)
    guided = none + step.text_guidance * (text - none) + step.reference_guidance * (both - text)
    return rescaled(guided, text, step.rescale)


@contextlib.contextmanager
def patched(*patches: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def variants(side: int) -> dict[str, Run]:
    """Compile a guided step in every form."""
    inputs = jax.tree.map(jnp.asarray, vars(draw_inputs(side, side, 1, 4)))
    levels = noise_levels(SCHEDULE)
    plan = plan_sampling(levels, visited_levels(levels, STEPS), Guidance())
    step: Evaluation = jax.tree.map(lambda values: values[LAUNCHED], plan.evaluations)
    unreferenced = step._replace(guidance=step.guidance._replace(form=jnp.asarray(TEXT_ONLY)))
    params = random_params(jnp.dtype("float32"))
    references = ReferenceLatents(inputs["references"][None], inputs["negative"][:1])

    ours = compiler_options()

    def part(compute: Compute) -> Any:
        return network(lambda keys: FlashFace(FlashFaceConfig(), compute, keys))

    def compiled(
        step: Evaluation,
        references: Any,
        compute: Compute,
        *patches: Any,
        options: Options | None = None,
    ) -> Run:
        model = part(compute)

        def run(params, inputs, references, step):
            conditioning = Conditioning(
                prompt=inputs["prompt"],
                negative=inputs["negative"],
                references=references,
                reference_weight=jnp.ones((1, 4)),
                person_share=jnp.ones((1, 1)),
                condition=inputs["mask"],
            )
            index = jnp.asarray(0)
            bound = model.bind(params)
            return guided_noise(bound, conditioning, inputs["x"], index, step, "noise")

        with patched(*patches):
            jitted = jax.jit(run, compiler_options=ours if options is None else options)
            program = jitted.lower(params, inputs, references, step).compile()
        return lambda: program(params, inputs, references, step).block_until_ready()

    model = part(Compute())
    track = jax.jit(
        lambda params: track_references(model.bind(params), references, step.timestep[None])
    )
    xla_convolves = Compute(convolve=jax.lax.conv_general_dilated)
    softmaxes = mock.patch.object(blocks, "attend_with_references", two_softmaxes)
    branches = mock.patch.object(sampler, "three_way", three_whole_branches)
    return {
        "all savings": compiled(step, references, Compute()),
        "attention of all heads at once": compiled(step, references, Compute(attend=ALL_HEADS)),
        "two softmaxes for every branch": compiled(step, references, Compute(), softmaxes),
        "an encoder for each branch": compiled(step, references, Compute(), branches),
        "XLA's own convolutions": compiled(step, references, xla_convolves),
        "XLA's own options": compiled(step, references, Compute(), options={}),
        "none of these five": compiled(
            step,
            references,
            Compute(attend=ALL_HEADS, convolve=jax.lax.conv_general_dilated),
            softmaxes,
            branches,
            options={},
        ),
        "and features kept": compiled(step, track(params), Compute()),
        "a step with strength 0": compiled(unreferenced, references, Compute()),
    }


def main() -> None:
    """Time every variant in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=384, help="side in pixels (default: 384)")
    parser.add_argument("--rounds", type=int, default=3, help="times each runs (default: 3)")
    options = parser.parse_args()
    runs = variants(options.size // 8)
    first = {name: np.asarray(run()) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    base = times["all savings"]
    for name, taken in times.items():
        ratio = statistics.median(other / own for other, own in zip(taken, base, strict=True))
        difference = np.abs(first[name] - first["all savings"]).max() / first["all savings"].std()
        print(
            f"{name:32s} {1e3 * statistics.median(taken):7.0f} ms  {ratio:5.2f} times the first; "
            f"differs by {difference:.1e} of the std"
        )


if __name__ == "__main__":
    main()
