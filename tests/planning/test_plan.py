"""The planning command, with small steps in place of the train step."""

import dataclasses
import importlib.util
import json
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flashface_jax.planning import plan as planned
from flashface_jax.planning.breakdown import Part
from flashface_jax.planning.compiling import elapsing
from flashface_jax.training.computation import topologies
from flashface_jax.training.config import load_config
from flashface_jax.training.plan import main
from tests.small import CONFIG

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'flashface-jax[plan]'",
)
FILE = "configs/synthetic.py"
WIDTH = 512


def step(weights, rows):
    """A gradient step: three matmuls, of which none of the rows' gradient is wanted."""
    gradients = jax.grad(lambda w: jnp.square(rows @ w).sum().astype(jnp.float32))(weights)
    return weights - gradients


def lower(config, devices):
    """The step with sharded weights, lowered for devices."""
    mesh = jax.sharding.Mesh(
        np.array(devices).reshape(-1, 1), ("fsdp", "data"), axis_types=(AxisType.Auto,) * 2
    )
    split = NamedSharding(mesh, P("fsdp"))
    weights = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.bfloat16, sharding=split)
    rows = jax.ShapeDtypeStruct((config.batch_size, WIDTH), jnp.bfloat16, sharding=split)
    with jax.set_mesh(mesh):
        return jax.jit(step, donate_argnums=0, out_shardings=split).lower(weights, rows)


def too_large(config, devices):
    """More than a chip has."""
    sharding = jax.sharding.SingleDeviceSharding(devices[0])
    x = jax.ShapeDtypeStruct((1 << 17, 1 << 20), jnp.uint8, sharding=sharding)
    return jax.jit(lambda x: jnp.flip(x, 0)).lower(x)


def model_jaxpr(config):
    weights, rows = jnp.zeros((WIDTH, WIDTH)), jnp.zeros((config.batch_size, WIDTH))
    return jax.make_jaxpr(lambda w, x: jax.grad(lambda w: jnp.square(x @ w).sum())(w))(
        weights, rows
    )


@pytest.fixture
def program(monkeypatch):
    """What stands in for the train step."""
    monkeypatch.setattr(topologies, "lower_train_step", lower)
    monkeypatch.setattr(topologies, "model_jaxpr", model_jaxpr)
    topologies.model_flops.cache_clear()
    return topologies


@pytest.fixture
def on_this_machine(program, monkeypatch):
    """One device of this machine in place of a TPU."""
    monkeypatch.setattr(topologies, "devices_of", lambda topology: jax.devices()[:1])
    return program


def run(capsys, *words):
    status = main(["--config", FILE, *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_plan_of_one_chip_adds_up(on_this_machine, capsys, tmp_path):
    path = tmp_path / "new" / "plan.json"
    status, out, _ = run(
        capsys,
        *("--topology", "v5e:1x1", "--batch-per-chip", 64, "--effort", "full", "--json", path),
        "--config.steps=1000",
    )
    assert status == 0 and f"wrote {path}" in out
    (plan,) = json.loads(path.read_text())
    matmul = 2 * 64 * WIDTH * WIDTH
    assert plan["run"] == {"steps": 1000, "batch_size": 64, "model_flops": 2 * matmul}
    assert plan["memory"]["arguments"] == (WIDTH * WIDTH + 64 * WIDTH) * 2
    assert plan["memory"]["fits"] is True and plan["collectives"] == []
    seconds = plan["bounds"]["step"]
    assert plan["images_per_second"] == pytest.approx(64 / seconds, rel=1e-12)
    assert plan["days"] == pytest.approx(1000 * seconds / 86_400, rel=1e-12)
    assert plan["mfu"] == pytest.approx(2 * matmul / (seconds * 197e12), rel=1e-12)
    # Elementwise operations come on top of the matmuls.
    assert 2 * matmul <= plan["work"]["flops"] < 2.2 * matmul
    assert re.search(r"days for 1,000 steps +[\d.e-]+\n", out)


def test_topologies_stand_side_by_side_in_100_columns(on_this_machine, capsys):
    names = ["v5e:1x1", "v6e:1x1", "v5p:2x2x1", "v4:2x2x1"]
    status, out, _ = run(capsys, "--topology", *names, "--effort", "full")
    assert status == 0
    header, *rows = out.splitlines()
    assert header.split() == names
    assert max(map(len, rows)) <= 100
    (available,) = (row for row in rows if "there is" in row)
    assert available.split()[-4:] == ["15.75", "31.25", "95.74", "30.75"]


def test_a_table_in_markdown_has_as_many_cells_in_every_row(on_this_machine, capsys):
    words = ("--topology", "v5e:1x1", "v6e:1x1", "--effort", "full", "--markdown")
    _, out, _ = run(capsys, *words)
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4}
    assert rows[1] == "| --- | ---: | ---: |"


def test_parts_of_the_model_stand_in_the_table(on_this_machine, capsys, monkeypatch):
    parts = [Part("denoiser/decoder", 1e-3, 2e-3, 3e-3), Part("text_tower", rest=1e-6)]
    monkeypatch.setattr(planned, "_parts", lambda *given: parts)
    _, out, _ = run(capsys, "--topology", "v5e:1x1", "--effort", "full")
    rows = dict(re.findall(r"^  (\S.*?) {2,}([\d.]+)$", out, re.MULTILINE))
    assert rows["denoiser/decoder"] == "6.00" and "text_tower" not in rows
    kinds = {name: cell for name, cell in rows.items() if name.startswith("all ")}
    assert list(kinds.values()) == ["1.00", "2.00", "3.00"], kinds


@needs_libtpu
def test_a_plan_of_four_chips_has_collectives_of_the_mesh(program, capsys, tmp_path):
    path = tmp_path / "plan.json"
    words = ("--topology", "v5e:2x2", "--batch-per-chip", 256, "--json", path)
    status, _, err = run(capsys, *words)
    assert status == 0, err
    (plan,) = json.loads(path.read_text())
    assert plan["chips"] == 4 and plan["mesh"] == {"fsdp": 4, "data": 1}
    assert plan["run"]["batch_size"] == 1024
    weights = WIDTH * WIDTH * 2
    kinds = {(total["kind"], total["axes"]): total["size"] for total in plan["collectives"]}
    assert kinds[("all-gather", "fsdp")] == weights
    assert kinds[("reduce-scatter", "fsdp")] in (weights, 2 * weights)  # in float32 or not
    assert 0 < plan["bounds"]["links"] <= plan["bounds"]["step"]
    if plan["work"]["compiler_seconds"] is not None:
        whole = sum(part["matmuls"] + part["rest"] for part in plan["parts"])
        assert whole == pytest.approx(plan["work"]["compiler_seconds"], rel=1e-9)
    assert 0 < plan["mfu"] < 1 and 0 < plan["hardware_utilisation"] < 1


@needs_libtpu
def test_what_does_not_fit_is_said_and_the_others_are_planned(program, capsys, monkeypatch):
    def by_size(config, devices):
        return too_large(config, devices) if len(devices) == 1 else lower(config, devices)

    monkeypatch.setattr(program, "lower_train_step", by_size)
    status, out, err = run(capsys, "--topology", "v5e:1x1", "v5e:2x2")
    assert status == 1
    assert re.search(r"v5e:1x1 does not fit: Ran out of memory .*exceeds available HBM", err)
    assert out.splitlines()[0].split() == ["v5e:2x2"]


def test_a_plan_says_what_its_numbers_leave_out(on_this_machine, capsys, monkeypatch):
    def in_a_loop(config, devices):
        def turn(x, _):
            return jnp.sin(x @ x), ()

        x = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)
        return jax.jit(lambda x: jax.lax.scan(turn, x, length=4)).lower(x)

    words = ("--topology", "v5e:1x1", "--effort", "full")
    assert "loop" not in run(capsys, *words)[1]
    monkeypatch.setattr(on_this_machine, "lower_train_step", in_a_loop)
    _, out, _ = run(capsys, *words)
    assert "  v5e:1x1: XLA counts one turn of every loop: bytes and" in out
    assert "multiplied by 4, as" in out
    assert "  v5e:1x1: The compiler gives no time of its own" in out


def test_a_log_is_not_filled_with_the_passing_of_time(capfd):
    elapsing("compiling", lambda: time.sleep(1.2))
    assert capfd.readouterr().err.count("compiling") <= 2  # its beginning and its end


def test_work_that_is_waited_for_returns_and_raises():
    assert elapsing("adding", lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        elapsing("dividing", lambda: 1 / 0)


WRONG = {
    "topology": (("--topology", "v9:2x2"), "'v9:2x2' is no topology"),
    "config": (("--topology", "v5e:2x2", "--config", "no.py"), "no.py does not exist"),
    "field": (("--topology", "v5e:2x2", "--config.bach_size=1"), "has no field 'bach_size'"),
    "section": (("--topology", "v5e:2x2", "--config.no.such=1"), "has no field"),
    "value": (("--topology", "v5e:2x2", "--config.batch_size=0"), "batch_size is 0"),
    "type": (("--topology", "v5e:2x2", "--config.batch_size=x"), "--config.batch_size=x: invalid"),
    "directory": (("--topology", "v5e:2x2", "--json", "/tmp"), "/tmp is a directory"),
    "place": (("--topology", "v5e:2x2", "--json", "/proc/no/plan.json"), "cannot be written to"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(program, capsys, name):
    words, said = WRONG[name]
    status, out, err = run(capsys, *words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [(), ("--topology",), ("--topology", "v5e:2x2", "--batch-per-chip", "0"), ("--what",)]
)
def test_wrong_usage_exits_with_2(capsys, words):
    assert main(["--config", FILE, *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.endswith(" --help explains.\n")


def test_overrides_reach_the_configuration():
    config = load_config(Path(FILE), ["--config.steps=7", "--config.optimizer.ema_decay=0.5"])
    assert (config.steps, config.optimizer.ema_decay) == (7, 0.5)


def test_ctrl_c_is_told_in_a_line(program, capsys, monkeypatch):
    def stop(options, overrides):
        raise KeyboardInterrupt

    monkeypatch.setattr(topologies, "plan", stop)
    status, _, err = run(capsys, "--topology", "v5e:2x2")
    assert status == 130 and err == "\nerror: stopped; nothing was written.\n"


def test_the_operations_of_a_model_are_counted_once_for_a_configuration(program):
    config = dataclasses.replace(CONFIG, batch_size=8)
    assert program.model_flops(config) == 2 * 2 * 8 * WIDTH * WIDTH
    program.model_jaxpr = None  # so that it could not be called again
    assert program.model_flops(config) == 2 * 2 * 8 * WIDTH * WIDTH
