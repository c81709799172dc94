"""Times of collectives on rings and lines of chips."""

import numpy as np
import pytest

from flashface_jax.planning.hardware import Interconnect
from flashface_jax.planning.hlo.collectives import Collective
from flashface_jax.planning.links import collective_seconds, group_links, links_seconds

LINK = Interconnect(bandwidth=10.0, dimensions=2, wraps_at=4)


def grid(*shape):
    return np.indices(shape).reshape(len(shape), -1).T


def exchange(kind, size, members, count=1):
    return Collective(kind, "f32", size, tuple(range(members)), count, False)


@pytest.mark.parametrize(
    ("shape", "members", "links"),
    [
        ((4, 8), [0, 1, 2, 3, 4, 5, 6, 7], 2),  # a whole dimension that closes a ring
        ((4, 8), [0, 1, 2, 3], 1),  # half of it
        ((4, 6), [0, 1, 2, 3, 4, 5], 1),  # a whole one that does not
        ((4, 8), list(range(32)), 4),
        ((2, 2), [0, 1, 2, 3], 2),
    ],
)
def test_links_of_a_group_follow_the_torus(shape, members, links):
    places = grid(*shape)[members]
    assert group_links(places, shape, LINK) == links * LINK.bandwidth


def test_two_chips_are_no_ring():
    always = Interconnect(bandwidth=10.0, dimensions=1, wraps_at=1)
    assert group_links(grid(2), (2,), always) == 10.0


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("all-gather", 75 / 20),
        ("reduce-scatter", 75 / 20),
        ("all-reduce", 150 / 20),
        ("all-to-all", 4 * 100 / (4 * 20)),
        ("collective-permute", 100 / 20),
    ],
)
def test_an_exchange_of_100_bytes_among_four_at_20_bytes_a_second(kind, seconds):
    assert collective_seconds(exchange(kind, 100, 4), 20.0) == pytest.approx(seconds, rel=1e-12)


def test_an_all_gather_simulated_hop_by_hop_takes_the_time_of_the_formula():
    # Each chip of a ring passes on what came in, both ways, until all have everything.
    members, shard = 8, 6.0
    have = [{chip} for chip in range(members)]
    seconds = 0.0
    ahead, behind = list(range(members)), list(range(members))
    while any(len(parts) < members for parts in have):
        ahead = [ahead[(chip - 1) % members] for chip in range(members)]
        behind = [behind[(chip + 1) % members] for chip in range(members)]
        both = sum(len(have[chip] | {ahead[chip], behind[chip]}) for chip in range(members))
        new = (both - sum(map(len, have))) / members
        seconds += (shard if new == 2 else shard / 2) / 10.0  # the last part comes by halves
        have = [have[chip] | {ahead[chip], behind[chip]} for chip in range(members)]
    formula = collective_seconds(exchange("all-gather", int(members * shard), members), 20.0)
    assert seconds == pytest.approx(formula, rel=1e-12)


def test_all_collectives_add_up_by_their_counts():
    several = [exchange("all-gather", 80, 8, count=3), exchange("all-reduce", 80, 8)]
    found = links_seconds(several, grid(4, 8), (4, 8), LINK)
    assert found == pytest.approx((3 + 2) * 70 / 20, rel=1e-12)
