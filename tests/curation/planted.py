"""Faces as vectors, planted: people far apart on the sphere, their faces scattered about them."""

import numpy as np

DIMENSIONS = 512
# Cosines of faces to their person's centre, as ArcFace gives them.
SPREAD = (0.65, 0.8)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def person(rng):
    """The centre of a new person."""
    return unit(rng.standard_normal(DIMENSIONS))


def twin(rng, center, cosine=0.5):
    """The centre of a person at a given cosine to another."""
    across = rng.standard_normal(DIMENSIONS)
    across = unit(across - (across @ center) * center)
    return cosine * center + np.sqrt(1 - cosine**2) * across


def faces(rng, center, count, spread=SPREAD):
    """Faces of a person, (count, 512)."""
    cosines = rng.uniform(*spread, (count, 1))
    across = rng.standard_normal((count, DIMENSIONS))
    across = unit(across - (across @ center)[:, None] * center)
    return (cosines * center + np.sqrt(1 - cosines**2) * across).astype(np.float32)


def strangers(rng, count, each=1):
    """Faces of other people, `each` of a person, (count, 512)."""
    each = max(1, min(each, count))
    found = [faces(rng, person(rng), each) for _ in range(-(-count // each))]
    return np.concatenate([np.zeros((0, DIMENSIONS), np.float32), *found])[:count]
