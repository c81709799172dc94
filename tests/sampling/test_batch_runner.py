"""From jobs to PNGs with planted detectors: faces, repainting, batches, and what is opened when."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flashface_jax.faces.files import read_mask, read_photo
from flashface_jax.faces.region import mask_of_box
from flashface_jax.models.flashface import FlashFaceConfig
from flashface_jax.sampling.batch_runner import BatchRunner, Reporter
from flashface_jax.sampling.jobs import Job, Repaint
from flashface_jax.sampling.pipeline import FlashFacePipeline, SamplingResult
from flashface_jax.sampling.records import read_record
from flashface_jax.sampling.reference_cache import ReferenceCache
from flashface_jax.weights.run_directory import open_weights
from tests.sampling.world import PlantedDetector, face_at, pixels, save


class Listener(Reporter):
    """Remembers what it hears."""

    def __init__(self):
        self.notes, self.failures, self.batches, self.there = [], {}, [], []

    def note(self, text):
        self.notes.append(text)

    def failed(self, name, error):
        self.failures[name] = str(error)

    def kept(self, images):
        self.there.append(images)

    def begin(self, images, evaluations):
        self.batches.append((images, evaluations))


def no_detector():
    raise AssertionError("no detector is needed")


@pytest.fixture
def runner(sample_folder, opened):
    """Makes a runner with some detector."""

    def make(detector=None, **more):
        weights = sample_folder / "weights"
        find = no_detector if detector is None else lambda: detector
        base = {"reporter": Listener(), **more}
        config = base.pop("config", open_weights(weights).config)
        return BatchRunner(config, lambda: opened(weights), weights, find, **base)

    return make


@pytest.fixture
def crops(sample_folder):
    return (str(sample_folder / "0.png"), str(sample_folder / "1.png"))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    """A photo of random texture, 300x200, and the same without any detail."""
    folder = tmp_path_factory.mktemp("portrait")
    noise = np.random.default_rng(2).integers(0, 256, (200, 300, 3), np.uint8)
    save(folder / "sharp.png", noise)
    save(folder / "flat.png", np.full((200, 300, 3), 90, np.uint8))
    return folder


THREE = (face_at(200, 20, 60), face_at(20, 30, 50), face_at(100, 20, 80), face_at(0, 150, 45, 0.4))


def references(path: Path):
    return read_record(path).references


def test_the_face_that_is_meant_makes_the_reference(runner, portrait, tmp_path):
    detector = PlantedDetector(*THREE)
    made = runner(detector)
    photo = (str(portrait / "sharp.png"),)
    jobs = [Job("x", (photo,), face=face, name=str(face)) for face in (0, 1, 2, "largest")]
    outcome = made.run(jobs, tmp_path)
    assert not outcome.failed and len(outcome.made) == 4
    hashes = [references(tmp_path / f"{job.name}.png") for job in jobs]
    assert len(set(hashes)) == 3 and hashes[1] == hashes[3], "the largest is the middle one"
    assert detector.asked == 4
    # The photo is not looked at again for the same face.
    made.run([replace(jobs[0], name="again", seed=1)], tmp_path)
    assert detector.asked == 4
    assert references(tmp_path / "again.png") == hashes[0]
    assert read_record(tmp_path / "0.png").detector == "4 planted faces"


@pytest.mark.parametrize(
    ("face", "said"), [("only", "shows 3 faces"), (3, "has no face 3"), ("7", "has no face 7")]
)
def test_a_face_that_is_not_there_names_the_photo(runner, portrait, tmp_path, face, said):
    photo = str(portrait / "sharp.png")
    made = runner(PlantedDetector(*THREE))
    outcome = made.run([Job("x", ((photo,),), face=face, name="a")], tmp_path / "out")
    assert photo in outcome.failed["a"] and said in outcome.failed["a"]
    assert not (tmp_path / "out").exists()


def test_a_blurred_photo_is_noted_and_serves(runner, portrait, tmp_path):
    photos = (str(portrait / "sharp.png"), str(portrait / "flat.png"))
    made = runner(PlantedDetector(face_at(50, 50, 100)))
    outcome = made.run([Job("x", (photos,), name="a")], tmp_path)
    assert len(outcome.made) == 1
    finding, blurred = made.reporter.notes
    assert finding == "finding faces with 1 planted faces"
    assert blurred.startswith(f"{photos[1]}: the face looks blurred")


def test_no_detector_is_asked_for_crops(runner, crops, tmp_path):
    outcome = runner().run([Job("x", (crops,), faces_cropped=True, name="a")], tmp_path)
    assert len(outcome.made) == 1
    assert read_record(tmp_path / "a.png").detector is None


# Painting into photos


FEATHER = 16.0


def far_from(mask: np.ndarray, pixels_away: float) -> np.ndarray:
    """Where a photo is farther than so many pixels from what is repainted."""
    rows, columns = np.nonzero(mask[..., 0])
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    down = np.maximum(rows.min() - y, y - rows.max())
    across = np.maximum(columns.min() - x, x - columns.max())
    return np.maximum(down, across) > pixels_away


@pytest.mark.parametrize("by", ["mask", "box", "pixels", "face"])
def test_a_photo_of_any_size_is_repainted_in_its_place(runner, crops, sample_folder, tmp_path, by):
    photo = str(sample_folder / "photo.png")
    shape = (100, 150)
    mask, repaint = {
        "mask": (
            read_mask(sample_folder / "mask.png", shape),
            Repaint(photo, mask=str(sample_folder / "mask.png")),
        ),
        "box": (
            mask_of_box((0.2, 0.3, 0.5, 0.7), shape),
            Repaint(photo, box="0.2 0.3 0.5 0.7"),
        ),
        "pixels": (
            mask_of_box((0.2, 0.3, 0.5, 0.7), shape),
            Repaint(photo, box=(30.0, 30.0, 75.0, 70.0)),
        ),
        "face": (
            mask_of_box((60 / 150, 0.2, 100 / 150, 0.6), shape),
            Repaint(photo, face=1, context=2.0),
        ),
    }[by]
    detector = PlantedDetector(face_at(5, 5, 45), face_at(60, 20, 40))
    made = runner(detector)
    job = Job("x", (crops,), faces_cropped=True, repaint=repaint, name="a")
    outcome = made.run([job], tmp_path)
    assert not outcome.failed
    result, original = pixels(tmp_path / "a.png"), read_photo(Path(photo))
    assert result.shape == original.shape == (100, 150, 3)
    region = made.loader.load(job).photo.region
    away = far_from(mask, FEATHER * region.scale + 2)
    assert away.any() and np.array_equal(result[away], original[away])
    inside = mask[..., 0] > 0
    changed = (result[inside] != original[inside]).any(axis=-1).mean()
    assert changed > 0.5, f"{changed:.0%} of the masked pixels changed"
    assert detector.asked == (by == "face") * 2
    assert read_record(tmp_path / "a.png").painted is not None


def test_what_is_painted_depends_on_photo_and_mask(runner, crops, sample_folder, tmp_path):
    photo = sample_folder / "photo.png"
    other = save(tmp_path / "other.png", 255 - read_photo(photo))
    jobs = [
        Job("x", (crops,), faces_cropped=True, name=name, repaint=repaint)
        for name, repaint in {
            "first": Repaint(str(photo), box="left"),
            "other": Repaint(str(other), box="left"),
            "right": Repaint(str(photo), box="right"),
        }.items()
    ]
    out = tmp_path / "out"
    runner().run(jobs, out)
    assert len({read_record(out / f"{job.name}.png").painted for job in jobs}) == 3


@pytest.mark.parametrize(
    ("repaint", "said"),
    [
        ({"face": "only"}, "shows 2 faces"),
        ({"face": 5}, "has no face 5"),
        ({"box": "nowhere"}, "'nowhere'"),
        ({"box": (0.0, 0.0, 0.02, 0.02)}, "under 8 pixels"),
        ({"mask": "nowhere.png"}, "nowhere.png does not exist"),
    ],
)
def test_what_cannot_be_repainted_is_said(runner, crops, sample_folder, tmp_path, repaint, said):
    job = Job(
        "x",
        (crops,),
        faces_cropped=True,
        repaint=Repaint(str(sample_folder / "photo.png"), **repaint),
        name="a",
    )
    made = runner(PlantedDetector(face_at(5, 5, 45), face_at(60, 20, 40)))
    assert said in made.run([job], tmp_path / "out").failed["a"]
    assert not (tmp_path / "out").exists()


def test_weights_that_only_repaint_ask_for_a_photo(runner, crops, sample_folder, tmp_path):
    config = open_weights(sample_folder / "weights").config
    denoiser = replace(config.flashface.denoiser, in_channels=25)
    inpainting = replace(config, flashface=FlashFaceConfig(denoiser))
    made = runner(config=inpainting)
    outcome = made.run([Job("x", (crops,), faces_cropped=True, name="a")], tmp_path)
    assert "only repaint" in outcome.failed["a"]


# Batches


@pytest.fixture
def black(monkeypatch):
    """Has pipelines make black images, and remembers what they were asked for."""
    asked = []

    def make(pipeline, requests, *, sampling, size, cache):
        asked.append((len(requests), sampling.steps, cache))
        images = np.zeros((len(requests), *size, 3), np.uint8)
        return SamplingResult(images, tuple(requests), sampling, size)

    monkeypatch.setattr(FlashFacePipeline, "make", make)
    return asked


def jobs_of(crops, *settings, **more):
    return [
        Job("x", (crops,), faces_cropped=True, name=f"{i}", settings=chosen, **more)
        for i, chosen in enumerate(settings)
    ]


def test_jobs_of_one_program_are_made_together(runner, crops, tmp_path, black):
    made = runner(at_a_time=2)
    jobs = jobs_of(crops, {"steps": 1}, {"steps": 2}, {"steps": 1}, {"steps": 2}, {"steps": 1})
    outcome = made.run(jobs, tmp_path)
    assert [path.stem for path in outcome.made] == ["0", "2", "1", "3", "4"]
    # The last batch is filled up, for a program of one image would have to be compiled.
    assert [(requests, steps) for requests, steps, _ in black] == [(2, 1), (2, 2), (2, 1)]
    assert made.reporter.batches == [(2, 1), (2, 2), (1, 1)]


def test_progress_counts_evaluations(runner, crops, tmp_path, black):
    made = runner()
    steps = {"steps": 4}
    made.run(jobs_of(crops, steps, {**steps, "solver": "heun"}), tmp_path)
    assert made.reporter.batches == [(1, 4), (1, 7)]


def test_more_evaluations_than_timesteps_are_refused_beforehand(runner, crops, tmp_path, black):
    outcome = runner().run(jobs_of(crops, {"steps": 600, "solver": "heun"}), tmp_path)
    assert "600 steps of heun ask the network 1199 times" in outcome.failed["0"] and not black


def test_few_jobs_wait_for_others(runner, crops, tmp_path, monkeypatch):
    read, made_at = [], []
    made = runner(at_a_time=2)
    load = made.loader.load
    monkeypatch.setattr(made.loader, "load", lambda job: read.append(job) or load(job))

    def make(pipeline, requests, *, sampling, size, cache):
        made_at.append(len(read))
        images = np.zeros((len(requests), *size, 3), np.uint8)
        return SamplingResult(images, tuple(requests), sampling, size)

    monkeypatch.setattr(FlashFacePipeline, "make", make)
    jobs = jobs_of(crops, *({"steps": i + 1} for i in range(20)))
    assert len(made.run(jobs, tmp_path).made) == 20
    waiting = [at - i for i, at in enumerate(made_at)]
    assert max(waiting) <= 8, f"{max(waiting)} photos were held at once"


def test_features_are_kept_only_for_batches_of_the_same_people(runner, crops, tmp_path, black):
    cache = ReferenceCache()
    made = runner(at_a_time=2, cache=cache)
    others = (crops[1],)
    jobs = [
        Job("x", (who,), faces_cropped=True, name=f"{i}")
        for i, who in enumerate([crops, crops, crops, others])
    ]
    made.run(jobs, tmp_path)
    assert [used for _, _, used in black] == [cache, None]


def test_nothing_is_opened_where_there_is_nothing_to_make(sample_folder, crops, tmp_path):
    def never():
        raise AssertionError("opened")

    config = open_weights(sample_folder / "weights").config
    made = BatchRunner(config, never, sample_folder, never, reporter=Listener())
    jobs = [
        Job("x", (("nowhere.png",),), faces_cropped=True, name="lost"),
        Job("x", (crops,), faces_cropped=True, name="large", width=65),
        Job("x", (crops,), faces_cropped=True, name="long", settings={"steps": 1001}),
        Job("x", (crops,), faces_cropped=True, name="place", face_position="under"),
    ]
    outcome = made.run(jobs, tmp_path / "out")
    assert [*outcome.failed] == ["lost", "large", "long", "place"]
    assert made.reporter.failures == outcome.failed
    assert made.run([], tmp_path / "out").made == []
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_heard_before_anything_is_made(runner, crops, tmp_path, black):
    heard = Listener()
    heard.begin = lambda *_: heard.batches.append([*heard.failures])
    jobs = [*jobs_of(crops, {}, {}), Job("x", (("nowhere.png",),), name="lost")]
    runner(reporter=heard).run(jobs, tmp_path)
    assert heard.batches == [["lost"], ["lost"]]


def test_what_is_there_is_counted_first(runner, crops, tmp_path, black):
    jobs = jobs_of(crops, {}, {}, {})
    assert len(runner().run(jobs[:2], tmp_path).made) == 2
    made = runner()
    outcome = made.run(jobs, tmp_path)
    assert (len(outcome.kept), len(outcome.made), made.reporter.there) == (2, 1, [2])


def test_two_jobs_of_one_name_are_refused(runner, crops, tmp_path):
    one = Job("x", (crops,), name="me")
    with pytest.raises(ValueError, match="Two jobs are named 'me'"):
        runner().run([one, one], tmp_path / "out")
    assert not (tmp_path / "out").exists()
