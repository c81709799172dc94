"""How much images of held-out people look like them, in the course of a run (paper, §4.1).

The judge is a recognition network: ArcFace of an insightface model pack for photos, or a network
trained on drawn people (`evaluation/identity.py`) for the built-in world.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from flashface_jax.evaluation.identity import IdentityEncoder, similarity
from flashface_jax.faces.choose import MIN_SCORE
from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.embedding import ArcFaceEmbedder, FaceEmbedder
from flashface_jax.faces.insightface_detector import InsightFaceDetector
from flashface_jax.training.monitoring.held_out_metric import HeldOutMetric, MadeImages


def open_identity_judge(place: Path) -> HeldOutMetric:
    """Open a judge.

    Args:
        place: an .npz file of an `IdentityEncoder`, or the folder of an insightface model pack.

    Raises:
        ValueError: it is neither, or damaged.
    """
    if place.is_dir():
        return by_arcface(InsightFaceDetector(place), ArcFaceEmbedder(place))
    if not place.is_file():
        raise ValueError(
            f"identity_judge is {place}, which does not exist: name an .npz file of an identity "
            "encoder, or the folder of an insightface model pack."
        )
    encoder = IdentityEncoder.load(place)

    def by_encoder(made: MadeImages) -> dict[str, float]:
        found, real = (
            encoder.embed(images, made.face_boxes) for images in (made.images, made.targets)
        )
        return {"identity_similarity": float(similarity(found, real).mean())}

    return by_encoder


def by_arcface(detector: FaceDetector, embedder: FaceEmbedder) -> HeldOutMetric:
    """Judge by the largest face of each image; people whose image shows none are counted apart."""

    def largest(image: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, " dims"] | None:
        faces = [face for face in detector.detect(image) if face.score >= MIN_SCORE]
        return embedder.embed(image, faces[:1])[0] if faces else None

    def judge(made: MadeImages) -> dict[str, float]:
        pairs = [
            (largest(one), largest(other))
            for one, other in zip(made.images, made.targets, strict=True)
        ]
        judged = [100 * float(a @ b) for a, b in pairs if a is not None and b is not None]
        found = {"faces_found": sum(a is not None for a, _ in pairs) / len(pairs)}
        if judged:
            found["identity_similarity"] = float(np.mean(judged))
        return found

    return judge
