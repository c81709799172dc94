"""Times, rates and memory of a run."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from flashface_jax.planning import hardware
from flashface_jax.planning.flops import count_flops
from flashface_jax.training.computation.program import Program, model_jaxpr
from flashface_jax.training.monitoring import telemetry
from flashface_jax.training.monitoring.observer import Observer
from flashface_jax.training.monitoring.telemetry import (
    Speed,
    Throughput,
    device_memory,
    rates,
    speed_on,
)
from tests.small import CONFIG

CHIPS = Speed(batch_size=256, model_flops=4e12, devices=8, peak_flops=1e12)


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(telemetry.time, "perf_counter", clock)
    return clock


def test_rates_of_steps_that_take_a_second_but_for_one():
    found = rates(CHIPS, steps=[1.0, 1.0, 4.0], waited=1.5)
    assert found == {
        "step_seconds": 2.0,
        "step_seconds_median": 1.0,
        "images_per_second": 128.0,
        "data_wait": 0.25,
        "mfu": pytest.approx(4e12 / (2 * 8 * 1e12), rel=1e-12),
    }


@pytest.mark.parametrize("unknown", ["model_flops", "peak_flops"])
def test_without_operations_or_peak_no_utilisation_is_made_up(unknown):
    values = {"batch_size": 8, "model_flops": 1.0, "devices": 1, "peak_flops": 1.0, unknown: None}
    assert "mfu" not in rates(Speed(**values), [1.0], 0.0)


def test_a_cpu_has_no_known_peak():
    assert speed_on(jax.devices()[0].device_kind, 1, 4, 1e9) == Speed(4, 1e9, 1, None)


def test_accelerators_have_the_peak_of_the_table():
    assert speed_on("TPU v5 lite", 4, 64, 1e9) == Speed(64, 1e9, 4, 197e12)


def test_metrics_are_means_and_waiting_is_a_share(clock):
    throughput = Throughput(CHIPS)
    for loss, waited in ((1.0, 0.5), (3.0, 1.0)):
        with throughput.waiting():
            clock.now += waited
        clock.now += 1.25
        throughput.add({"loss": jnp.float32(loss)})
    found = throughput.read()
    assert found["loss"] == 2.0
    assert found["data_wait"] == 1.5 / 4.0
    assert found["step_seconds"] == 2.0 and found["step_seconds_median"] == 2.0


def test_a_reading_starts_anew(clock):
    throughput = Throughput(CHIPS)
    clock.now += 9.0
    throughput.add({"loss": jnp.float32(1.0)})
    throughput.read()
    clock.now += 2.0
    throughput.add({"loss": jnp.float32(5.0)})
    found = throughput.read()
    assert (found["loss"], found["step_seconds"]) == (5.0, 2.0)


def test_a_restart_forgets_times_but_no_metrics(clock):
    throughput = Throughput(CHIPS)
    throughput.add({"loss": jnp.float32(1.0)})
    clock.now += 60.0  # a grid of samples is drawn
    throughput.restart()
    clock.now += 2.0
    throughput.add({"loss": jnp.float32(2.0)})
    found = throughput.read()
    assert (found["loss"], found["step_seconds"], found["data_wait"]) == (1.5, 2.0, 0.0)


def test_a_reading_right_after_a_restart_has_metrics_without_rates(clock):
    throughput = Throughput(CHIPS)
    assert throughput.read() == {}
    throughput.add({"loss": jnp.float32(1.0)})
    throughput.restart()
    assert throughput.read() == {"loss": 1.0}


def test_a_wait_that_fails_is_counted_all_the_same(clock):
    throughput = Throughput(CHIPS)
    with pytest.raises(StopIteration), throughput.waiting():
        clock.now += 1.0
        raise StopIteration
    clock.now += 1.0
    throughput.add({})
    assert throughput.read()["data_wait"] == 0.5


def sleeping(seconds):
    """A step that takes its time, and is called without waiting for it."""
    step = jax.jit(lambda x: jax.pure_callback(lambda x: time.sleep(seconds) or x, x, x))
    step(jnp.float32(0)).block_until_ready()
    return step


def test_a_reading_waits_for_the_step_that_is_still_running():
    step = sleeping(0.3)
    throughput = Throughput(CHIPS)
    throughput.add({"loss": step(jnp.float32(1.0))})
    assert throughput.read()["step_seconds"] >= 0.3


def test_each_steps_time_is_true_though_steps_run_behind_the_loop():
    step = sleeping(0.1)
    throughput = Throughput(CHIPS)
    for _ in range(4):
        throughput.add({"loss": step(jnp.float32(1.0))})
    found = throughput.read()
    # Not the time of calling a step, which is next to none.
    assert found["step_seconds_median"] >= 0.09 and found["step_seconds"] >= 0.1


def test_memory_is_that_of_the_fullest_device():
    gib = 1 << 30
    stats = [
        {"bytes_in_use": gib, "peak_bytes_in_use": 5 * gib},
        {"bytes_in_use": 2 * gib},
        None,
    ]
    assert device_memory(stats) == {"memory_gib": 2.0, "memory_peak_gib": 5.0}


def test_a_cpu_tells_no_memory():
    assert device_memory([device.memory_stats() for device in jax.local_devices()]) == {}


def test_a_run_on_a_known_accelerator_logs_its_utilisation(monkeypatch, tmp_path):
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(hardware._BY_KIND, kind, hardware.accelerator_of("TPU v5e"))
    program = Program.over(CONFIG, jax.devices()[:1])
    with Observer(program, tmp_path, 0) as observer:
        observer.after(1, {"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(2.0)})
        observer.log(1)
    found = json.loads((tmp_path / "metrics.jsonl").read_text())
    flops = count_flops(model_jaxpr(CONFIG)).total
    assert flops > 1e8
    assert found["mfu"] == pytest.approx(flops / found["step_seconds"] / 197e12, rel=1e-6)
