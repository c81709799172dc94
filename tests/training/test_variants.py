"""Variants of a run: LoRA, inpainting, smaller batches added up, other starting weights."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flashface_jax.models.autoencoder.autoencoder import encode_without_face
from flashface_jax.models.autoencoder.patch_cosines import PatchCosines, PatchCosinesConfig
from flashface_jax.models.lora import LoraConfig, trains_beside_lora
from flashface_jax.models.network import flatten
from flashface_jax.training.computation.batch import Batch
from flashface_jax.training.computation.program import Program
from flashface_jax.training.config import TrainConfig, from_mapping, load_config
from flashface_jax.training.optimizer import OptimizerConfig
from flashface_jax.training.paper import (
    PAPER,
    as_config_dict,
    denoiser_changed,
    flashface_changed,
)
from flashface_jax.training.run.loop import train
from flashface_jax.training.run.start import initial_weights, starting_state
from flashface_jax.weights.run_directory import open_weights
from flashface_jax.weights.system import build_system
from tests.random_weights import write_random_weights
from tests.small import CONFIG, with_changes

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
LORA = with_changes(
    steps=3,
    lora=LoraConfig(rank=2, alpha=4.0),
    trainable=("flashface",),
    optimizer=OptimizerConfig("adam", 1e-3, ema_decay=0.9),
    grid_people=0,
)


def config_of(path) -> TrainConfig:
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_mapping(module.get_config().to_dict())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_valid_and_says_how_to_run_it(path):
    config = config_of(path)
    assert config.steps >= 1
    assert f"--config configs/{path.name}" in path.read_text()


def test_configurations_of_the_paper_are_its_variants():
    found = {path.stem.removeprefix("flashface_"): config_of(path) for path in CONFIGS}
    networks = {name: config.system.flashface for name, config in found.items()}
    assert networks["inpainting"].inpaints and not networks["flashface"].inpaints
    assert found["lora"].lora is not None and found["lora"].system.image_size == 512
    placements = {name: network.denoiser.reference_attention for name, network in networks.items()}
    assert [placements[name] for name in ("attention_encoder", "attention_both", "flashface")] == [
        "encoder",
        "both",
        "decoder",
    ]
    assert not networks["untied"].tie_reference_middle


DENOISER_FLAG = "--config.system.flashface.denoiser.reference_attention"


@pytest.mark.parametrize("placement", ["encoder", "both", "none", "middle,decoder/level1"])
def test_places_of_reference_attention_survive_files_and_flags(placement):
    wanted = denoiser_changed(PAPER, reference_attention=placement)
    assert from_mapping(as_config_dict(wanted).to_dict()) == wanted
    assert from_mapping(json.loads(json.dumps(dataclasses.asdict(wanted)))) == wanted
    path = Path(__file__).parents[2] / "configs/flashface.py"
    config = load_config(path, [f"{DENOISER_FLAG}={placement}"])
    assert config.system.flashface == wanted.system.flashface


def test_unknown_places_are_refused_on_the_command_line():
    path = Path(__file__).parents[2] / "configs/flashface.py"
    with pytest.raises(ValueError, match="There is no place 'decoder/1' for reference attention"):
        load_config(path, [f"{DENOISER_FLAG}=middle,decoder/1"])


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory):
    """A run of low-rank updates of other weights, and its frozen state before."""
    folder = tmp_path_factory.mktemp("lora")
    base = write_random_weights(folder / "base", CONFIG.system)
    config = dataclasses.replace(LORA, initial=str(base))
    before = jax.device_get(starting_state(Program.over(config), initial_weights(config)).frozen)
    return folder / "run", before, train(config, folder / "run")


def test_with_lora_what_is_frozen_stays_bit_for_bit(lora_run):
    _, before, state = lora_run
    frozen, was = flatten(state.frozen), flatten(before)
    assert set(frozen) == set(was)
    assert any("self_attention" in name for name in frozen)
    for name, value in frozen.items():
        np.testing.assert_array_equal(value, was[name], err_msg=name)


def test_a_run_goes_on_without_the_weights_that_it_began_with(lora_run, tmp_path, capsys):
    workdir, _, state = lora_run
    shutil.copytree(workdir, tmp_path / "run")
    again = train(dataclasses.replace(LORA, initial=str(tmp_path / "gone")), tmp_path / "run")
    assert int(again.step) == int(state.step) and "resumed" in capsys.readouterr().out


def test_with_lora_only_updates_references_and_reference_attention_train(lora_run):
    _, _, state = lora_run
    assert set(state.params) == {"flashface", "lora"}
    assert all(trains_beside_lora(name) for name in flatten(state.params["flashface"]))
    ups = [value for name, value in flatten(state.params["lora"]).items() if name.endswith("up")]
    assert ups and any(np.abs(up).max() > 0 for up in ups)


def test_a_lora_run_opens_as_merged_weights_that_predict_as_it_does(lora_run):
    workdir, _, state = lora_run
    system = build_system(CONFIG.system)
    merged = open_weights(workdir).params("flashface", system.flashface)
    frozen = state.frozen["flashface"]
    trained, updates = state.average["flashface"], state.average["lora"]
    named = {**flatten(frozen), **flatten(trained)}
    whole = {name: jnp.asarray(value) for name, value in named.items()}
    updated = flatten(updates)
    for name in {n.rsplit("/", 1)[0] for n in updated}:
        whole[name] = whole[name] + 2.0 * updated[f"{name}/down"] @ updated[f"{name}/up"]
    difference = max(
        float(jnp.abs(whole[name] - value).max()) for name, value in flatten(merged).items()
    )
    assert set(flatten(merged)) == set(whole) and difference <= 1e-6, f"{difference:.1e}"
    moved = max(float(jnp.abs(whole[n] - named[n]).max()) for n in whole)
    assert moved > 1e-5, "the updates do something"


def batch(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(
        target=rng.integers(0, 256, (rows, 64, 64, 3), dtype=np.uint8),
        face_mask=(rng.random((rows, 8, 8, 1)) > 0.5).astype(np.uint8),
        target_face=np.ones((rows, 8, 8, 1), np.uint8),
        tokens=rng.integers(0, 600, (rows, 40)).astype(np.int32),
        references=rng.integers(0, 256, (rows, 4, 32, 32, 3), dtype=np.uint8),
        reference_valid=np.ones((rows, 4), bool),
    )


def one_step(config):
    """Parameters before and after a step of plain descent, and its metrics."""
    # Which compiles in half of Adam's time.
    program = dataclasses.replace(
        Program.over(config, jax.devices()[:1]), optimizer=optax.sgd(1e-3)
    )
    state = program.fresh_state()
    head = state.params["flashface"]["denoiser"]["head"]["conv"]
    head["kernel"] = jnp.ones_like(head["kernel"]) / 16  # at zero it passes no gradient on
    before = flatten(jax.device_get(state.params))
    step = program.step(np.zeros((1, 40), np.int32))
    state, metrics = step(state, program.layout.place_rows(batch()))
    return before, flatten(jax.device_get(state.params)), jax.device_get(metrics)


@pytest.fixture(scope="module")
def plain_step():
    return one_step(CONFIG)


@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 2}, {"recompute": "all but attention"}],
    ids=["smaller batches", "all but attention again"],
)
def test_saving_memory_changes_nothing(plain_step, changes):
    expected, found = plain_step[-1], one_step(with_changes(**changes))[-1]
    for name, tolerance in (("loss", 1e-6), ("gradient_norm", 1e-5), ("sample_loss", 1e-5)):
        worst = np.max(np.abs(found[name] - expected[name]) / expected[name])
        assert worst <= tolerance, f"{name}: {worst:.1e}"


def test_an_inpainting_model_is_shown_the_image_without_its_face():
    autoencoder = PatchCosines(PatchCosinesConfig(patch=8))
    image = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3)) + 1
    mask = jnp.zeros((1, 2, 2, 1)).at[0, 0, 1].set(1)
    latents = encode_without_face(autoencoder, image, mask)
    np.testing.assert_allclose(latents[0, 0, 1], 0, atol=1e-6)
    np.testing.assert_allclose(latents[0, 1], autoencoder.encode(image)[0, 1], atol=1e-5)


INPAINTING = denoiser_changed(
    with_changes(
        data=dataclasses.replace(
            CONFIG.data,
            draws=dataclasses.replace(
                CONFIG.data.draws,
                drop=dataclasses.replace(CONFIG.data.draws.drop, face_mask=0.0),
            ),
        ),
    ),
    in_channels=25,
)


def test_an_inpainting_model_trains_all_its_channels():
    before, after, metrics = one_step(INPAINTING)
    assert metrics["healthy"]
    name = "flashface/denoiser/encoder/0/kernel"
    moved = np.abs(after[name] - before[name]).max(axis=(0, 1, 3))
    assert moved.shape == (25,) and moved.min() > 0, moved


def test_a_mask_that_may_be_dropped_is_refused_for_inpainting():
    with pytest.raises(ValueError, match=r"drop.face_mask is 0.1; an inpainting model"):
        denoiser_changed(CONFIG, in_channels=25)


def test_lora_without_flashface_among_the_trainable_is_refused():
    with pytest.raises(ValueError, match="lora is given"):
        with_changes(lora=LoraConfig(2, 2.0), trainable=("text_tower",))


@pytest.mark.parametrize("variant", ["same", "inpainting", "both", "untied", "lora"])
def test_a_run_starts_from_another_runs_weights(lora_run, variant, capsys):
    workdir, _, _ = lora_run
    config = {
        "same": CONFIG,
        "inpainting": INPAINTING,
        "both": denoiser_changed(CONFIG, reference_attention="both"),
        "untied": flashface_changed(
            CONFIG, dataclasses.replace(CONFIG.system.flashface, tie_reference_middle=False)
        ),
        "lora": LORA,
    }[variant]
    program = Program.over(dataclasses.replace(config, initial=str(workdir)))
    state = starting_state(program, initial_weights(program.config))
    assert int(state.step) == 0
    source = flatten(
        open_weights(workdir).params("flashface", build_system(CONFIG.system).flashface)
    )
    held = {**flatten(state.frozen), **flatten(state.params)}
    same = [name for name in source if f"flashface/{name}" in held]
    assert len(same) == len(source)
    for name in same:
        ours = np.asarray(held[f"flashface/{name}"])
        if ours.shape == source[name].shape:
            np.testing.assert_array_equal(ours, source[name], err_msg=name)
    assert f"starting from {workdir}" in capsys.readouterr().out


def test_weights_with_another_text_tower_are_refused_by_field(lora_run):
    workdir, _, _ = lora_run
    tower = dataclasses.replace(CONFIG.system.text_tower, num_heads=4)
    system = dataclasses.replace(CONFIG.system, text_tower=tower)
    program = Program.over(with_changes(system=system, initial=str(workdir)))
    with pytest.raises(ValueError, match=r"system.text_tower.num_heads: 2 there, 4 here"):
        starting_state(program, initial_weights(program.config))
