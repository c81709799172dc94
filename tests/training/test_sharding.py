"""Where parameters lie: by path and shape, the moments like their parameters, errors by name."""

import re

import jax
import pytest
from jax.sharding import PartitionSpec

from flashface_jax.models.network import flatten
from flashface_jax.planning.flops import count_flops
from flashface_jax.training.computation.program import Program, model_jaxpr
from flashface_jax.training.paper import PAPER
from flashface_jax.training.parallel.sharding import (
    Layout,
    ShardingConfig,
    partition_specs,
    split_dimension,
)
from tests.small import with_changes


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("params/flashface/denoiser/encoder/0/kernel", (3, 3, 320, 320), 3),
        ("a/kernel", (2560, 1280), 0),
        ("a/kernel", (3, 3, 5, 320), None),  # small
        ("a/kernel", (3, 3, 2561, 320), 3),  # 2561 does not divide
        ("a/kernel", (1001, 1001), None),
        ("a/bias", (65536,), None),
        ("text_tower/token_embedding", (49408, 768), None),
    ],
)
def test_kernels_are_split_along_their_largest_dimension_that_divides(name, shape, expected):
    assert split_dimension(name, shape, 16, ShardingConfig()) == expected


def test_exceptions_go_by_the_ends_of_paths():
    config = ShardingConfig(split=(("attention/q/kernel", 0), ("o/kernel", -1)))
    assert split_dimension("x/attention/q/kernel", (320, 640), 16, config) == 0
    assert split_dimension("x/attention/o/kernel", (640, 640), 16, config) is None
    assert split_dimension("x/other-attention/q/kernel", (320, 640), 16, config) == 1


@pytest.mark.parametrize("dimension", [1, 2])
def test_an_exception_that_cannot_be_followed_names_the_parameter(dimension):
    config = ShardingConfig(split=(("q/kernel", dimension),))
    with pytest.raises(ValueError, match=r"^middle/q/kernel of shape \[320, 77\] cannot be split"):
        split_dimension("middle/q/kernel", (320, 77), 16, config)


@pytest.fixture(scope="module")
def paper():
    """Shapes of the paper's state, and how 16 devices share it."""
    shapes = Program.over(PAPER, jax.devices()[:1]).shapes
    return shapes, partition_specs(shapes, 16, ShardingConfig())


def test_moments_lie_as_their_parameters_do(paper):
    _, specs = paper
    params, compared = flatten(specs.params), 0
    for name, spec in flatten({"optimizer": specs.optimizer}).items():
        found = re.search(r"(?:mu|nu)/(.*)", name)
        if found:
            assert spec == params[found[1]], name
            compared += 1
    assert compared == 2 * len(params)


def test_hardly_anything_of_the_papers_networks_stays_whole(paper):
    shapes, specs = paper
    named = flatten(specs.params)
    sizes = {name: leaf.size for name, leaf in flatten(shapes.params).items()}
    whole = sum(size for name, size in sizes.items() if named[name] == PartitionSpec())
    assert sum(sizes.values()) > 1.6e9
    # Biases, scales, and the convolutions from and to latents.
    assert whole < 2e6, whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 6, "accumulate": 4},
            r"batch_size 6 does not divide by 4, the number of devices \(1\)",
        ),
        (
            {"sharding": ShardingConfig(fsdp=2)},
            "of which there are 1, do not divide into groups of 2",
        ),
    ],
)
def test_what_does_not_divide_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Program.over(with_changes(**changes), jax.devices()[:1])


def test_operations_are_counted_whatever_shares_parameters():
    shared = with_changes(sharding=ShardingConfig(fsdp=2), accumulate=2)
    counts = [count_flops(model_jaxpr(config)).total for config in (shared, with_changes())]
    assert counts[0] == counts[1] > 0


def test_a_process_makes_the_rows_of_its_own_devices():
    layout = Layout.over(jax.devices()[:1], ShardingConfig())
    assert layout.own_rows(6) == [0, 1, 2, 3, 4, 5]
