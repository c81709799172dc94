"""How alike two faces of the drawn world are, as a small recognition network sees them.

The network stands in for the ArcFace-R101 of the paper's evaluation. It is trained on a world whose
people no generative model sees, with the additive angular margin of ArcFace (Deng et al., arXiv
1801.07698), except that a person's other photo takes the place of a learned centre: with few photos
each of many people that learns several times faster. `verification_auc` says how far to trust it.
"""

import functools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt8
from tqdm import tqdm

from flashface_jax.common.shapes import Image
from flashface_jax.models.blocks import Compute, conv, layer_norm, linear
from flashface_jax.models.network import Network, Params, flatten, network, unflatten
from flashface_jax.world import SyntheticWorld

Photos = UInt8[np.ndarray, "n H W 3"]
Boxes = Float[np.ndarray, "n 4"]
Embeddings = Float32[np.ndarray, "n d"]
Labels = Int[np.ndarray, " n"]

CROP_SIDE = 32
CROP_MARGIN = 1.4  # side of the crop over the longer side of the box: takes in most of the hair
DIMENSIONS = 64
_STAGES = ((4, 64), (2, 128))  # side of the squares merged, channels
_HIDDEN = 256
_EMBED_BATCH = 64
_SCALE, _MARGIN = 10.0, 0.05  # ArcFace's s and m; a margin of 0.2 makes all faces alike


def _merge_pixels(x: Float[Array, "batch h w c"], by: int) -> Float[Array, "batch h2 w2 c2"]:
    """Turn squares of by x by pixels into channels."""
    b, h, w, c = x.shape
    squares = x.reshape(b, h // by, by, w // by, by, c).swapaxes(2, 3)
    return squares.reshape(b, h // by, w // by, by * by * c)


class FaceNetwork(nnx.Module):
    """Crops -> unit embeddings: squares of pixels are merged and convolved, twice, then joined."""

    def __init__(self, keys: nnx.Rngs):
        compute = Compute()
        stages, side, channels = [], CROP_SIDE, 3
        for merged, width in _STAGES:
            # Merging by a linear layer: strided convolutions have slow gradients on a CPU.
            merge = linear(merged**2 * channels, width, compute, keys)
            norm, refine = layer_norm(width, keys), conv(width, width, compute, keys)
            stages.append(nnx.List([merge, norm, refine]))
            side, channels = side // merged, width
        self.stages = nnx.List(stages)
        self.norm = layer_norm(channels, keys)
        self.gather = linear(side * side * channels, _HIDDEN, compute, keys)
        self.head = linear(_HIDDEN, DIMENSIONS, compute, keys)

    def __call__(self, crops: Image) -> Float[Array, "batch d"]:
        """Embed crops in [-1, 1]."""
        x = crops
        for (merged, _), (merge, norm, refine) in zip(_STAGES, self.stages, strict=True):
            x = merge(_merge_pixels(x, merged))
            x = x + refine(nnx.silu(norm(x)))
        x = self.gather(nnx.silu(self.norm(x)).reshape(x.shape[0], -1))
        x = self.head(nnx.silu(x))
        return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


@functools.cache
def _network() -> Network[FaceNetwork]:
    return network(FaceNetwork)


@jax.jit
def _embed(params: Params, crops: Image) -> Float[Array, "batch d"]:
    return _network().bind(params)(crops)


def crop_faces(images: Photos, boxes: Boxes) -> Float32[np.ndarray, "n side side 3"]:
    """Cut square crops around boxes, in [-1, 1]; beyond an edge the image's border is repeated.

    Args:
        images: RGB.
        boxes: x1, y1, x2, y2 in pixels; may reach out of the image.

    Raises:
        ValueError: a box is empty.
    """
    empty = np.flatnonzero(~(boxes[:, :2] < boxes[:, 2:]).all(axis=1))
    if empty.size:
        box = boxes[empty[0]]
        raise ValueError(f"boxes must have x1 < x2 and y1 < y2, but box {empty[0]} is {box}.")
    centers = (boxes[:, :2] + boxes[:, 2:]).astype(float) / 2
    sides = np.maximum(1, np.rint(CROP_MARGIN * (boxes[:, 2:] - boxes[:, :2]).max(axis=1)))
    crops = np.empty((len(images), CROP_SIDE, CROP_SIDE, 3), np.uint8)
    for k, (image, center, side) in enumerate(zip(images, centers, sides.astype(int), strict=True)):
        # Cut first, resize then: only cv2.resize averages over the pixels that it merges.
        move = np.column_stack([np.eye(2), side / 2 - center])
        cut = cv2.warpAffine(image, move, (side, side), borderMode=cv2.BORDER_REPLICATE)
        how = cv2.INTER_AREA if side > CROP_SIDE else cv2.INTER_CUBIC
        crops[k] = cv2.resize(cut, (CROP_SIDE, CROP_SIDE), interpolation=how)
    return crops / np.float32(127.5) - 1


def _varied_crops(
    images: Photos, boxes: Boxes, rng: np.random.Generator
) -> Float32[np.ndarray, "n side side 3"]:
    """Cut crops as a generator's images have them: misplaced, soft, noisy, tinted."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Float32[np.ndarray, "..."]:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    center = center + half * uniform(-0.15, 0.15, 2)
    half = half * np.exp(uniform(-0.12, 0.12, 1))
    boxes = np.concatenate([center - half, center + half], axis=1)
    crops = crop_faces(images, boxes)
    for k in np.flatnonzero(rng.random(n) < 0.5):
        crops[k] = cv2.GaussianBlur(crops[k], (0, 0), rng.uniform(0.3, 1.0))
    crops = crops * uniform(0.95, 1.05, 1, 1, 3) + uniform(-0.05, 0.05, 1, 1, 3)
    crops += uniform(0.0, 0.06, 1, 1, 1) * rng.standard_normal(crops.shape, np.float32)
    return crops.clip(-1, 1)


@dataclass(frozen=True, eq=False)
class IdentityEncoder:
    """A trained recognition network.

    Attributes:
        params: of `FaceNetwork`.
    """

    params: Params

    def embed(self, images: Photos, boxes: Boxes) -> Embeddings:
        """Embed the faces in boxes (x1, y1, x2, y2 in pixels) as unit rows.

        Raises:
            ValueError: a box is empty.
        """
        crops = crop_faces(images, boxes)
        rows = [np.empty((0, DIMENSIONS), np.float32)]
        for start in range(0, len(crops), _EMBED_BATCH):
            some = crops[start : start + _EMBED_BATCH]
            # Always the same size, so that the network is compiled once.
            full = np.pad(some, ((0, _EMBED_BATCH - len(some)), (0, 0), (0, 0), (0, 0)))
            rows.append(np.asarray(_embed(self.params, full))[: len(some)])
        return np.concatenate(rows)

    def save(self, path: Path) -> None:
        """Write the parameters to one .npz file."""
        with path.open("wb") as file:
            np.savez(file, **flatten(self.params))

    @classmethod
    def load(cls, path: Path) -> "IdentityEncoder":
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds no identity encoder.
        """
        shapes = _network().shapes
        try:
            with np.load(path) as file:
                named = {name: jnp.asarray(file[name]) for name in file.files}
        except (ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz file of an identity encoder.") from error
        wanted = {name: leaf.shape for name, leaf in flatten(shapes).items()}
        if {name: leaf.shape for name, leaf in named.items()} != wanted:
            raise ValueError(f"{path} holds other parameters than those of an identity encoder.")
        return cls(unflatten(named, shapes))


def _margin_loss(a: Float[Array, "people d"], b: Float[Array, "people d"]) -> Float[Array, ""]:
    """Cross-entropy of s·cos(θ + m) with the same person's other photo, s·cos(θ) with others'."""
    cosine = a @ b.T
    own = jnp.diagonal(cosine)
    sine = jnp.sqrt(jnp.maximum(1 - own**2, 1e-6))
    harder = own * np.cos(_MARGIN) - sine * np.sin(_MARGIN)
    # Past θ = π - m the cosine would turn back up; a line goes on falling.
    harder = jnp.where(own > -np.cos(_MARGIN), harder, own - _MARGIN * np.sin(_MARGIN))
    logits = _SCALE * jnp.fill_diagonal(cosine, harder, inplace=False)
    people = jnp.arange(len(a))
    both_ways = jnp.concatenate([logits, logits.T])
    entropy = optax.softmax_cross_entropy_with_integer_labels(both_ways, jnp.tile(people, 2))
    return entropy.mean()


def draw_photos(
    world: SyntheticWorld, identities: Sequence[int], *, progress: bool = False
) -> tuple[Photos, Boxes, Labels]:
    """Draw all photos of some people: images, face boxes, and who is in them."""
    bar = tqdm(identities, desc="drawing photos", unit="person", disable=not progress)
    photos = [world.photo(i, j) for i in bar for j in range(world.photos_per_identity)]
    return (
        np.stack([photo.image for photo in photos]),
        np.stack([photo.face_box for photo in photos]),
        np.array([photo.identity for photo in photos]),
    )


def _pairs(world: SyntheticWorld, count: int, rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """Rows of two different photos of each of `count` people: all first ones, then all second."""
    people, photos = (
        rng.choice(world.num_identities, count, replace=False),
        world.photos_per_identity,
    )
    first = rng.integers(photos, size=count)
    second = (first + rng.integers(1, photos, size=count)) % photos
    return np.concatenate([people * photos + first, people * photos + second])


def train_identity_encoder(
    world: SyntheticWorld,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> IdentityEncoder:
    """Train an encoder to tell the people of a world apart; the same seed gives the same encoder.

    Args:
        world: people that no generative model under test was trained on; two or more photos each.
        steps: > 0.
        batch_size: photos a step; even, at most two for each person of the world.
        seed: of the parameters, the order of photos, and how they are varied.
        progress: show progress bars.

    Raises:
        ValueError: the world is too small for pairs, or for the batch.
    """
    n, photos = world.num_identities, world.photos_per_identity
    if photos < 2:
        raise ValueError(f"photos_per_identity is {photos} but must be 2 or more.")
    if batch_size % 2 or not 2 <= batch_size <= 2 * n:
        raise ValueError(f"batch_size is {batch_size} but must be even and from 2 to {2 * n}.")
    images, boxes, _ = draw_photos(world, range(n), progress=progress)
    params = _network().init(jax.random.key(seed))
    schedule = optax.cosine_onecycle_schedule(steps, peak_value=2e-3)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05)
    )
    state = optimizer.init(params)

    @jax.jit
    def step(
        params: Params, state: optax.OptState, crops: Image
    ) -> tuple[Params, optax.OptState, Array]:
        value, gradient = jax.value_and_grad(
            lambda params: _margin_loss(*jnp.split(_embed(params, crops), 2))
        )(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    rng = np.random.default_rng(seed)
    bar = tqdm(range(steps), desc="training the face encoder", unit="step", disable=not progress)
    for k in bar:
        rows = _pairs(world, batch_size // 2, rng)
        crops = _varied_crops(images[rows], boxes[rows], rng)
        # Seen in a mirror, a person is another person.
        mirrored = np.tile(rng.random(batch_size // 2) < 0.5, 2)
        crops[mirrored] = crops[mirrored, :, ::-1]
        params, state, value = step(params, state, crops)
        if k % 20 == 0:  # reading the loss waits for the step
            bar.set_postfix(loss=f"{float(value):.2f}", refresh=False)
    return IdentityEncoder(params)


def similarity(a: Embeddings, b: Embeddings) -> Float32[np.ndarray, " n"]:
    """Cosine x100 of unit rows, row by row: 100 for the same face."""
    return 100 * (a * b).sum(axis=-1)


def mean_and_standard_error(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean of independent values, and its standard error; n > 1."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@dataclass(frozen=True)
class Verification:
    """How well embeddings tell people apart.

    Attributes:
        auc: how often two photos of one person are more alike than photos of two, 0.5 to 1.
        same: mean similarity of photos of one person, and its standard error over people.
        different: the same for photos of two people.
    """

    auc: float
    same: tuple[float, float]
    different: tuple[float, float]


def verification(embeddings: Embeddings, labels: Labels) -> Verification:
    """Compare all pairs of embeddings; every person needs two or more, and there are two or more.

    Args:
        embeddings: unit rows.
        labels: who it is.
    """
    cosine = 100 * embeddings @ embeddings.T
    same = labels[:, None] == labels
    different = ~same
    np.fill_diagonal(same, False)
    lower = np.sort(cosine[different])
    below, up_to = (np.searchsorted(lower, cosine[same], side) for side in ("left", "right"))
    people = [labels == label for label in np.unique(labels)]

    def mean_over_people(pairs: np.ndarray) -> tuple[float, float]:
        return mean_and_standard_error(np.array([cosine[p][pairs[p]].mean() for p in people]))

    return Verification(
        auc=float((below + up_to).mean() / (2 * len(lower))),
        same=mean_over_people(same),
        different=mean_over_people(different),
    )


def verification_auc(
    encoder: IdentityEncoder, world: SyntheticWorld, identities: Sequence[int]
) -> Verification:
    """Measure how well an encoder tells people apart whom it was not trained on.

    Args:
        encoder: trained on another world.
        world: two or more photos a person.
        identities: two or more people of it.
    """
    images, boxes, labels = draw_photos(world, identities)
    return verification(encoder.embed(images, boxes), labels)
