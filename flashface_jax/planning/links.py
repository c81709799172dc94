"""How long collectives take at least on the links between chips.

On a ring of n chips that sends both ways, an all-gather or reduce-scatter of V bytes takes
V (n - 1) / (n W), an all-reduce twice that, and an all-to-all of V bytes a chip n V / (4 W), with W
the bandwidth of the links that the group can use: both directions along each dimension of the torus
that it runs along if that dimension closes a ring, one direction if not. After "How to Scale Your
Model", part 3. Latency, and groups that disturb each other, are left out.
"""

from collections.abc import Iterable

import numpy as np

from flashface_jax.planning.hardware import Interconnect
from flashface_jax.planning.hlo.collectives import Collective

PASSES = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}


def links_seconds(
    collectives: Iterable[Collective],
    places: np.ndarray,
    shape: tuple[int, ...],
    interconnect: Interconnect,
) -> float:
    """Add up the time of all collectives, one after another.

    Args:
        collectives: of one run of a program.
        places: coordinates of each device of the program, (devices, dimensions).
        shape: chips along each dimension.
        interconnect: the chips' links.

    Returns:
        Seconds.
    """
    seconds = 0.0
    for one in collectives:
        bandwidth = group_links(places[list(one.group)], shape, interconnect)
        seconds += one.count * collective_seconds(one, bandwidth)
    return seconds


def group_links(places: np.ndarray, shape: tuple[int, ...], interconnect: Interconnect) -> float:
    """Bandwidth, in bytes/s out of a chip, of the links among chips at some places.

    A dimension with one or two chips is no ring: its two ends would be the same link.
    """
    links = 0
    for dimension, size in enumerate(shape):
        along = len(set(places[:, dimension].tolist()))
        ring = along == size and size > 2 and size % interconnect.wraps_at == 0
        links += 0 if along == 1 else 2 if ring else 1
    return links * interconnect.bandwidth


def collective_seconds(collective: Collective, bandwidth: float) -> float:
    """Time of one exchange, given the bandwidth of its group's links in bytes/s."""
    size, members = collective.size, len(collective.group)
    if collective.kind in PASSES:
        return PASSES[collective.kind] * size * (members - 1) / members / bandwidth
    if collective.kind.endswith("all-to-all"):
        return members * size / 4 / bandwidth
    return size / bandwidth  # to a neighbour
