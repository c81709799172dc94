"""Names of topologies, and the devices behind them."""

import importlib.util

import pytest

from flashface_jax.planning.hardware import accelerator_of
from flashface_jax.planning.topology import KNOWN, parse_topology
from flashface_jax.planning.topology_devices import devices_of

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'flashface-jax[plan]'",
)
ALL = [f"{tpu}:{shape}" for tpu, shapes in KNOWN.items() for shape in shapes.split(", ")]


def test_a_name_gives_chip_and_shape():
    topology = parse_topology("v5p:4x4x8")
    assert (topology.accelerator.name, topology.shape, topology.chips) == ("v5p", (4, 4, 8), 128)


@pytest.mark.parametrize(
    "name", ["v5e", "v5e:", "v5e:0x4", "v5e:4", "v5:4x4", "v5e:4x4 ", "v5e:4x4_twisted", "h200:8"]
)
def test_what_is_no_topology_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"is no topology.*v4:2x2x1.*v6e:1x1"):
        parse_topology(name)


def test_a_shape_of_another_tpu_is_answered_with_shapes_of_this_one():
    with pytest.raises(ValueError, match=r"'v5p:4x4' has 2 dimensions, and v5p has 3.*v5p:4x4x4"):
        parse_topology("v5p:4x4")


def test_without_libtpu_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'flashface-jax\[plan\]'"):
        devices_of(parse_topology("v5e:2x2"))


@needs_libtpu
@pytest.mark.parametrize("name", ALL)
def test_each_known_topology_has_one_device_a_chip_of_the_kind_in_the_table(name):
    topology = parse_topology(name)
    devices = devices_of(topology)
    assert len(devices) == topology.chips
    assert {accelerator_of(device.device_kind) for device in devices} == {topology.accelerator}


@needs_libtpu
def test_a_shape_that_no_host_has_is_an_error_that_names_others():
    with pytest.raises(ValueError, match=r"does not take v5e:3x3 .*v5e comes as 1x1"):
        devices_of(parse_topology("v5e:3x3"))
