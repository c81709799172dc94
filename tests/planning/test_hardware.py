"""The table of accelerators: found by what JAX says, true to ratios that are known otherwise."""

import pytest

from flashface_jax.planning.hardware import GPUS, TPUS, accelerator_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
    ],
)
def test_an_accelerator_is_found_by_what_jax_calls_it(kind, name):
    found = accelerator_of(kind)
    assert found is not None and found.name == name


@pytest.mark.parametrize("kind", ["cpu", "TPU v9", "NVIDIA H100 PCIe", ""])
def test_what_is_not_in_the_table_is_not_guessed(kind):
    assert accelerator_of(kind) is None


def test_no_device_kind_stands_for_two_accelerators():
    kinds = [kind for chip in (*TPUS, *GPUS) for kind in chip.device_kinds]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    ("name", "per_chip"),
    # Bytes/s of all links of a chip, both directions, as Google's pages give it for the chip.
    [("v5e", 400e9), ("v5p", 1200e9), ("v6e", 800e9)],
)
def test_links_add_up_to_what_the_chip_is_sold_with(name, per_chip):
    (chip,) = (tpu for tpu in TPUS if tpu.name == name)
    link = chip.interconnect
    assert 2 * link.dimensions * 2 * link.bandwidth == per_chip
