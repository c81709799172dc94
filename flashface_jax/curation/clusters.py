"""Which faces of the photos found under a name are the person's: k-means and its centre.

Numbers that the paper does not give are stated here, with their reasons. ArcFace embeddings of one
person scatter about a centre at cosines of 0.65 to 0.8; embeddings of different people are
nearly at right angles.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from flashface_jax.curation.rules import ClusterRules

SEED = 0
RESTARTS = 4


@dataclass(frozen=True, eq=False)
class PersonFaces:
    """The faces of a name, judged.

    Attributes:
        problem: "no_dense_cluster" or "ambiguous_identity"; "" if the person is known.
        sizes: photos of each dense cluster, the largest first.
        member: whether a face lies in the person's cluster.
        similarity: cosine of a face to the person's centre.
    """

    problem: str
    sizes: tuple[int, ...]
    member: Bool[np.ndarray, " faces"]
    similarity: Float64[np.ndarray, " faces"]


@dataclass(frozen=True, eq=False)
class _Cluster:
    """A dense cluster: its faces, the unit centre of its core, and the photos of that core."""

    faces: Int[np.ndarray, " members"]
    center: Float64[np.ndarray, " dims"]
    photos: int


def find_person(
    embeddings: Float[np.ndarray, "faces dims"],
    photo_of_face: Int[np.ndarray, " faces"],
    rules: ClusterRules,
) -> PersonFaces:
    """Cluster the faces of a name; the largest dense cluster is the person.

    The order of the faces does not matter, and the same faces give the same answer.

    Args:
        embeddings: unit vectors.
        photo_of_face: the photo that each face is in; a cluster's size is its number of photos.
        rules: see there.

    Source: paper, data collection. Density and ambiguity are this project's.
    """
    count = len(embeddings)
    order = np.array(sorted(range(count), key=lambda i: embeddings[i].tobytes()), dtype=int)
    points, photos = embeddings[order].astype(np.float64), photo_of_face[order]
    labels = merge_alike(points, k_means(points), rules.min_similarity)
    found = [
        _dense_cluster(points, photos, np.flatnonzero(labels == label), rules)
        for label in np.unique(labels)
    ]
    dense = sorted((one for one in found if one is not None), key=lambda one: -one.photos)
    sizes = tuple(one.photos for one in dense)
    member, similarity = np.zeros(count, bool), np.zeros(count)
    if not dense:
        return PersonFaces("no_dense_cluster", sizes, member, similarity)
    member[order[dense[0].faces]] = True
    similarity[order] = points @ dense[0].center
    ambiguous = len(dense) > 1 and sizes[1] >= rules.ambiguous_share * sizes[0]
    return PersonFaces("ambiguous_identity" if ambiguous else "", sizes, member, similarity)


def k_means(points: Float64[np.ndarray, "n dims"]) -> Int[np.ndarray, " n"]:
    """Clusters of unit vectors, √n of them: some for the many strangers that a name also finds.

    So many split the person's own faces, which `merge_alike` puts together again; too few would
    mix people, which nothing undoes.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415  (optional)
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    distinct = len(np.unique(points, axis=0))
    if distinct < 2:
        return np.zeros(len(points), int)
    k = min(distinct, math.ceil(math.sqrt(len(points))))
    with threadpool_limits(1):  # several threads add up in any order
        labels = KMeans(k, n_init=RESTARTS, random_state=SEED).fit(points).labels_
    return np.asarray(labels).astype(int)


def merge_alike(
    points: Float64[np.ndarray, "n dims"], labels: Int[np.ndarray, " n"], min_similarity: float
) -> Int[np.ndarray, " n"]:
    """Join clusters of one person, most alike first, until none are alike.

    Clusters are one person's if the cosine of their centres is `min_similarity`: what a face needs
    to be its person's, a cluster does. The centre of a few faces is known less well, so that small
    clusters need only as much as two such groups of one person have on average: with s for
    `min_similarity`, a group of m faces at cosine s to the person's centre has a mean of squared
    length s² + (1 - s²) / m, and two groups' means have the inner product s².
    """
    names = np.unique(labels)
    labels = np.searchsorted(names, labels)
    sums = np.stack([points[labels == i].sum(0) for i in range(len(names))])
    sizes = np.bincount(labels).astype(float)
    while len(sums) > 1:
        centers = _unit(sums)
        length = np.sqrt(min_similarity**2 + (1 - min_similarity**2) / sizes)
        needed = np.minimum(min_similarity, min_similarity**2 / np.outer(length, length))
        margin = np.triu(centers @ centers.T - needed, 1) + np.tril(np.full(needed.shape, -np.inf))
        i, j = np.unravel_index(margin.argmax(), margin.shape)
        if margin[i, j] < 0:
            break
        sums[i] += sums[j]
        sizes[i] += sizes[j]
        sums, sizes = np.delete(sums, j, 0), np.delete(sizes, j)
        labels = np.where(labels == j, i, labels - (labels > j))
    return labels


def _dense_cluster(
    points: Float64[np.ndarray, "n dims"],
    photos: Int[np.ndarray, " n"],
    faces: Int[np.ndarray, " members"],
    rules: ClusterRules,
) -> _Cluster | None:
    """A cluster as a person, or None if its faces are not one person's.

    Its core are the faces alike to its centre; they must come from several photos, and be
    alike among themselves. To be alike to the centre says little of two faces, which make it.
    """
    core = faces[points[faces] @ _unit(points[faces].sum(0)) >= rules.min_similarity]
    number = len(np.unique(photos[core]))
    if number < max(2, rules.min_share * len(np.unique(photos))):
        return None
    total = points[core].sum(0)
    between_two = (total @ total - len(core)) / (len(core) * (len(core) - 1))
    if between_two < rules.min_similarity**2:
        return None
    return _Cluster(faces, _unit(total), number)


def _unit(vectors: Float64[np.ndarray, "*n dims"]) -> Float64[np.ndarray, "*n dims"]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(float).tiny))
