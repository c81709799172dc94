"""Whole runs of the smallest configuration: resumption, metrics, errors."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from flashface_jax.training.computation.program import Program
from flashface_jax.training.config import from_mapping
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.training.run.checkpoint import Checkpoints
from flashface_jax.training.run.data import open_dataset, open_tokenizer
from flashface_jax.training.run.loop import train
from flashface_jax.training.run.run_config import require_same_run, write_run_config
from flashface_jax.weights.directory import read_config, write_config
from tests.small import AVERAGING as CONFIG


def with_changes(**changes):
    """The configuration with some fields changed."""
    return dataclasses.replace(CONFIG, **changes)


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run never stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, train(CONFIG, workdir)


@pytest.fixture(scope="module")
def resumed_run(tmp_path_factory):
    """The same run, stopped after its first checkpoint and started again with other trackers."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    train(with_changes(steps=3, grid_people=0, trackers=("jsonl", "csv")), workdir)
    # A line that a run killed after its checkpoint has left behind.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "loss": 99.0}) + "\n" + '{"step": 5, "lo')
    return workdir, train(CONFIG, workdir)


def test_resumed_losses_are_those_of_a_run_never_stopped(whole_run, resumed_run):
    assert losses(resumed_run[0]) == losses(whole_run[0])
    assert [step for step, _ in losses(whole_run[0])] == [1, 2, 3, 4, 5, 6]


def test_resumed_state_is_that_of_a_run_never_stopped(whole_run, resumed_run):
    assert int(whole_run[1].step) == int(resumed_run[1].step) == 6
    for name in ("params", "average", "optimizer"):
        pairs = zip(
            jax.tree.leaves(getattr(whole_run[1], name)),
            jax.tree.leaves(getattr(resumed_run[1], name)),
            strict=True,
        )
        assert all(np.array_equal(a, b) for a, b in pairs), f"{name} differs"


def test_a_run_leaves_what_it_promises(whole_run):
    workdir, _ = whole_run
    assert (workdir / "config.json").exists() and (workdir / "tokenizer/vocab.json").exists()
    assert list((workdir / "tensorboard").glob("events*"))
    logged = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])
    assert logged["loss"] == logged["loss/noise"] and logged["gradient_norm"] > 0
    assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir()) == [3, 6]
    with Image.open(workdir / "samples/held_out_0000006.png") as sheet:
        # 4 references, the real target and the generated image of 2 people, in cells of 128.
        assert sheet.size[0] == 6 * 128 + 5 * 4
        assert sheet.size[1] > 2 * 128


def test_another_seed_draws_other_parameters_and_noise():
    states = [Program.over(with_changes(seed=seed)).fresh_state() for seed in (0, 0, 1)]
    kernels = [state.params["flashface"]["denoiser"]["encoder"][0]["kernel"] for state in states]
    keys = [jax.random.key_data(state.key) for state in states]
    for drawn in (kernels, keys):
        assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_another_configuration_is_refused(whole_run):
    workdir, _ = whole_run
    with pytest.raises(ValueError, match=r"another configuration \(batch_size: 4 -> 2\)"):
        train(with_changes(batch_size=2), workdir)


def test_only_what_changed_is_named_however_deep(whole_run):
    workdir, _ = whole_run
    deep = dataclasses.replace(CONFIG.optimizer, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"\(optimizer.learning_rate: 0.001 -> 0.5\): choose"):
        train(with_changes(optimizer=deep), workdir)


def test_another_world_is_not_taken_for_this_one(whole_run, tmp_path):
    (tmp_path / "data").symlink_to(whole_run[0] / "data")
    world = dataclasses.replace(CONFIG.data.world, seed=7)
    config = with_changes(data=dataclasses.replace(CONFIG.data, world=world))
    with pytest.raises(ValueError, match=r"data holds another world than data.world describes"):
        train(config, tmp_path)


def test_weights_are_no_place_for_a_run(tmp_path):
    write_config(tmp_path, CONFIG.system)
    written = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=rf"holds weights, and no run: .*initial={tmp_path}"):
        train(CONFIG, tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("config.json", written)
    ]


def test_checkpoints_without_their_configuration_are_left_alone(tmp_path):
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"train.json is missing beside checkpoints: restore it"):
        train(CONFIG, tmp_path)


def test_only_a_run_that_has_saved_keeps_its_tokenizer(whole_run, tmp_path):
    """An earlier start may have had weights, or captions, of another one."""
    dataset = open_dataset(whole_run[0], CONFIG.data)
    right = (whole_run[0] / "tokenizer/vocab.json").read_text()
    (tmp_path / "tokenizer").mkdir()
    left = tmp_path / "tokenizer/vocab.json"
    left.write_text("{}")
    open_tokenizer(tmp_path, CONFIG, dataset)
    assert left.read_text() == right
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    left.write_text(right + "\n")
    open_tokenizer(tmp_path, CONFIG, dataset)
    assert left.read_text() == right + "\n"


def test_the_last_step_cannot_be_moved_once_the_rate_falls_towards_it(tmp_path):
    config = with_changes(optimizer=OptimizerConfig(cosine_decay=True))
    tmp_path.mkdir(exist_ok=True)
    write_run_config(tmp_path, config)
    require_same_run(tmp_path, config)
    with pytest.raises(ValueError, match=r"\(steps: 6 -> 9\)"):
        require_same_run(tmp_path, dataclasses.replace(config, steps=9))
    plain = with_changes(steps=9)
    write_run_config(tmp_path, dataclasses.replace(plain, steps=6))
    require_same_run(tmp_path, plain)


def test_a_run_that_began_before_a_field_was_added_goes_on(tmp_path):
    write_run_config(tmp_path, CONFIG)
    path = tmp_path / "train.json"
    written = json.loads(path.read_text())
    del written["loss"]["weights"], written["trackers"]
    written["likeness"] = written.pop("identity_judge")  # as it was called
    path.write_text(json.dumps(written))
    require_same_run(tmp_path, CONFIG)
    weights = dataclasses.replace(CONFIG.loss.weights, face=0.5)
    other = with_changes(loss=dataclasses.replace(CONFIG.loss, weights=weights))
    with pytest.raises(ValueError, match=r"\(loss.weights.face: 0.0 -> 0.5\)"):
        require_same_run(tmp_path, other)
    path.write_text(json.dumps({**written, "depth": 3}))  # of a version that is not known
    with pytest.raises(ValueError, match=r"depth: 3 -> None"):
        require_same_run(tmp_path, CONFIG)


def test_how_samples_are_drawn_may_change_between_stop_and_resumption(resumed_run, whole_run):
    sampling = dataclasses.replace(CONFIG.system.sampling, steps=2)
    system = dataclasses.replace(CONFIG.system, sampling=sampling)
    workdir, state = resumed_run
    again = train(with_changes(system=system, grid_people=0), workdir)
    assert int(again.step) == int(state.step)
    assert read_config(workdir).sampling.steps == 2


def test_a_checkpoint_holds_the_state_of_muon(tmp_path):
    config = with_changes(optimizer=OptimizerConfig(method="muon", ema_decay=0.9))
    program = Program.over(config)
    saved = program.fresh_state()
    # Fresh moments are zero, which a restoration that reads nothing would have too.
    noise = jax.tree.map(lambda leaf: leaf + 1, saved.optimizer)
    saved = dataclasses.replace(saved, optimizer=noise)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(saved, 5, {"next": 3})
    restored = checkpoints.restore(program.shapes, program.shardings)
    checkpoints.close()
    assert restored.data == {"next": 3}
    for name in ("params", "average", "optimizer"):
        pairs = zip(
            jax.tree.leaves(getattr(saved, name)),
            jax.tree.leaves(getattr(restored.state, name)),
            strict=True,
        )
        assert all(np.array_equal(a, b) for a, b in pairs), f"{name} differs"


def test_configuration_survives_the_trip_through_dicts():
    assert from_mapping(dataclasses.asdict(CONFIG)) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 3}, "batch"),
        ({"steps": "many"}, "steps"),
        ({"steps": 0}, "steps is 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
        ({"grid_people": -1}, "grid_people is -1"),
        ({"checkpoint_every": 3, "log_every": 2}, "must be a multiple of log_every"),
        ({"trainable": ("vae",)}, "trainable is"),
        ({"data": {"draws": {"drop": {"text": 1.5}}}}, "drop rate of text is 1.5"),
        ({"data": {"loader": {"threads": 0}}}, "threads is 0"),
    ],
)
def test_wrong_configurations_name_the_field(change, message):
    values = dataclasses.asdict(CONFIG)
    with pytest.raises(ValueError, match=message):
        from_mapping({**values, **change})
