"""The roofline of hand-made cases."""

import dataclasses

import pytest

from flashface_jax.planning.hardware import Accelerator, Interconnect
from flashface_jax.planning.memory import Memory
from flashface_jax.planning.roofline import (
    Work,
    days,
    hardware_utilisation,
    model_utilisation,
    roofline,
)

CHIP = Accelerator("chip", (), 100.0, 1000.0, 10.0, 128, Interconnect(1.0, 1, 1))
WORK = Work(
    flops=300.0,
    kernel_flops=50.0,
    padded_kernel_flops=100.0,
    bytes=20.0,
    compiler_seconds=None,
    links_seconds=1.0,
)


@pytest.mark.parametrize(
    ("changes", "limit", "step"),
    [
        ({}, "arithmetic", 4.0),
        ({"bytes": 50.0}, "memory", 5.0),
        ({"links_seconds": 7.0}, "links", 7.0),
        # The compiler's 4.5 s outside of kernels, and 1 s of kernels.
        ({"compiler_seconds": 4.5}, "arithmetic", 5.5),
        ({"compiler_seconds": 4.5, "bytes": 50.0}, "memory", 5.5),
        ({"compiler_seconds": 4.5, "links_seconds": 5.4}, "arithmetic", 5.5),
        ({"compiler_seconds": 4.5, "links_seconds": 5.6}, "links", 5.6),
        # A compiler more hopeful than peak and bandwidth allow.
        ({"compiler_seconds": 0.1}, "arithmetic", 4.0),
    ],
)
def test_the_largest_term_limits_the_step(changes, limit, step):
    found = roofline(dataclasses.replace(WORK, **changes), CHIP)
    assert (found.limit, found.step) == (limit, pytest.approx(step, rel=1e-12))


def test_terms_are_what_is_done_at_the_peak():
    found = roofline(WORK, CHIP)
    assert (found.arithmetic, found.memory, found.links) == (4.0, 2.0, 1.0)


def test_utilisation_leaves_out_padding_and_the_models_recomputation_too():
    assert hardware_utilisation(WORK, 5.0, CHIP) == pytest.approx(350 / 500, rel=1e-12)
    assert model_utilisation(800.0, 5.0, 4, 100.0) == pytest.approx(800 / 2000, rel=1e-12)


def test_days_of_a_run():
    assert days(50_000, 1.728) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("temporary", "fits"), [(500, True), (501, False), (900, False)])
def test_a_program_fits_with_a_tenth_to_spare(temporary, fits):
    memory = Memory(arguments=300, outputs=100, temporary=temporary, available=1000)
    assert memory.needed == 400 + temporary
    assert memory.spare == pytest.approx(0.6 - temporary / 1000, abs=1e-12)
    assert memory.fits is fits
