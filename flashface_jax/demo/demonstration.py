"""Training and drawing in miniature, and judging what was drawn.

Draws a world of people, trains a small FlashFace on some of them, and draws people it has never
seen. Then it asks a recognition network, trained on a third world, whether the drawn people are
who they should be: with their references, without any, and with another person's.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from flashface_jax.common.contact_sheet import contact_sheet
from flashface_jax.data.dataset import VALIDATION, IdClusters
from flashface_jax.evaluation.identity import (
    IdentityEncoder,
    mean_and_standard_error,
    similarity,
    train_identity_encoder,
    verification_auc,
)
from flashface_jax.sampling.pipeline import FlashFacePipeline
from flashface_jax.sampling.program import RequestBatch
from flashface_jax.training.config import TrainConfig
from flashface_jax.training.monitoring.held_out import (
    HeldOutBatch,
    held_out_requests,
    held_out_sheet,
)
from flashface_jax.training.run.loop import train
from flashface_jax.weights.system import sampling_plan
from flashface_jax.world import SyntheticWorld

RECOGNITION_WORLD = SyntheticWorld(
    seed=1000, num_identities=2400, photos_per_identity=3, image_size=64
)
PROMPTS = {
    "smiling on a beach": "a photo of a young person, smiling, on a beach",
    "old, in a forest": "a photo of an old person, in a forest",
    "dyed blue hair": "a photo of a young person with dyed blue hair, in a city",
    "sunglasses, at night": "a photo of a young person wearing sunglasses, at night",
}
FACE_BOX = (0.27, 0.17, 0.73, 0.79)


def recognition(
    out: Path, config: TrainConfig, world: SyntheticWorld
) -> tuple[IdentityEncoder, dict[str, float]]:
    """Train the recognition network on `world`, or load it; say how good it is on held-out people.

    Its photos are framed as those that it will see.
    """
    path = out / "identity_encoder.npz"
    if path.exists():
        encoder = IdentityEncoder.load(path)
    else:
        encoder = train_identity_encoder(replace(world, framing=config.data.world.framing))
        encoder.save(path)
    drawn = config.data.world
    found = verification_auc(encoder, drawn.draw(), drawn.held_out_people)
    return encoder, {"auc": found.auc, "same": found.same[0], "different": found.different[0]}


def draw_conditions(pipeline: FlashFacePipeline, asked: HeldOutBatch) -> dict[str, np.ndarray]:
    """Draw every person with their references, with another person's, and without any.

    Prompts, face positions and seeds are the same in all three.
    """
    request = asked.request
    conditions = {
        "own references": request,
        "another's": replace(request, references=jnp.roll(request.references, 1, axis=0)),
        "no references": replace(
            request, reference_weight=jnp.zeros_like(request.reference_weight)
        ),
    }
    plan = sampling_plan(pipeline.config.sampling, pipeline.config.schedule)

    def draw(request: RequestBatch) -> np.ndarray:
        return np.asarray(pipeline.generate(pipeline.params, request, plan))

    return {name: draw(request) for name, request in conditions.items()}


def judge(
    encoder: IdentityEncoder, asked: HeldOutBatch, made: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Similarity of each image to the real target photo, cosine x 100, by condition."""
    boxes = asked.face_boxes
    target = encoder.embed(asked.targets, boxes)
    return {name: similarity(encoder.embed(images, boxes), target) for name, images in made.items()}


def report(scores: dict[str, np.ndarray], trust: dict[str, float]) -> tuple[str, bool]:
    """Say in words what the similarities show, and whether identity was carried."""
    lines = [
        f"recognition network on real photos of held-out people: AUC {trust['auc']:.3f}, "
        f"same person {trust['same']:.1f}, different people {trust['different']:.1f}",
        f"similarity to the held-out target ({len(next(iter(scores.values())))} people):",
    ]
    for name, values in scores.items():
        mean, error = mean_and_standard_error(values)
        lines.append(f"  {name:15s} {mean:6.1f} ± {error:.1f}")
    own, carried = scores["own references"], True
    for name in ("no references", "another's"):
        mean, error = mean_and_standard_error(own - scores[name])
        carried &= mean >= 3 * error
        lines.append(f"  own - {name}: {mean:.1f}, {mean / error:.1f} standard errors")
    lines.append(
        "identity is carried from the references"
        if carried
        else "identity is NOT clearly carried: under 3 standard errors; train longer"
    )
    return "\n".join(lines), carried


def draw_prompts(pipeline: FlashFacePipeline, asked: HeldOutBatch, people: int) -> Image.Image:
    """A few held-out people under several prompts, some of which contradict the references."""
    rows, titles = [], []
    for person in range(people):
        crops = np.asarray(asked.request.references[person])
        images = pipeline([*PROMPTS.values()], crops, seeds=[7] * len(PROMPTS), face_box=FACE_BOX)
        rows.append([*crops, *images])
        titles.append(f"person {person}")
    columns = ["reference"] * asked.request.references.shape[1] + [*PROMPTS]
    return contact_sheet(rows, cell=128, column_titles=columns, row_titles=titles)


def write_people(out: Path, asked: HeldOutBatch, people: int) -> None:
    """Write reference crops as files, for trying flashface sample."""
    for person in range(people):
        folder = out / "people" / f"{person:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, crop in enumerate(np.asarray(asked.request.references[person])):
            Image.fromarray(crop).save(folder / f"{i + 1}.png")


def demonstrate(
    config: TrainConfig, recognition_world: SyntheticWorld, out: Path, most_people: int
) -> bool:
    """Train, draw and judge, saying what is done; True if identity was carried.

    Args:
        config: of FlashFace's training run.
        recognition_world: people to train the recognition network on.
        out: directory to write; what an interrupted demo left there is used again.
        most_people: held-out people to judge, as far as the world has them.
    """
    out.mkdir(parents=True, exist_ok=True)
    print("1/4 drawing a world and training FlashFace on it", flush=True)
    train(config, out / "run")
    print("2/4 training a recognition network on other people", flush=True)
    encoder, trust = recognition(out, config, recognition_world)
    print("3/4 drawing held-out people", flush=True)
    pipeline = FlashFacePipeline.from_directory(out / "run")
    photos = IdClusters(out / "run" / "data").photos(VALIDATION)
    shape, references = config.sample_shape, config.data.draws.max_references
    asked = held_out_requests(photos, most_people, pipeline.tokenizer, shape, references, 1)
    made = draw_conditions(pipeline, asked)
    scores = judge(encoder, asked, made)
    first = {name: images[:12] for name, images in made.items()}
    held_out_sheet(asked, first, cell=128).save(out / "held_out.png")
    print("4/4 drawing prompts", flush=True)
    shown = min(4, len(asked.captions))
    draw_prompts(pipeline, asked, shown).save(out / "prompts.png")
    write_people(out, asked, shown)
    text, carried = report(scores, trust)
    numbers = {name: values.tolist() for name, values in scores.items()}
    (out / "report.json").write_text(json.dumps({**trust, "similarity": numbers}))
    print(f"\n{text}\nwrote {out}/held_out.png, {out}/prompts.png, {out}/report.json")
    return carried
