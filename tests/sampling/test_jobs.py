"""Jobs files: people, prompts and seeds to images; stopped and gone on with; what fails is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flashface_jax.common.from_json import from_json
from flashface_jax.diffusion.settings import SamplingConfig
from flashface_jax.sampling.jobs import Job, Repaint, parse_job, read_jobs
from flashface_jax.sampling.records import write_png
from tests.sampling.world import difference, images


@pytest.fixture(scope="module")
def good(sample_folder):
    """Two people and both mixed, with two prompts or seeds each."""
    first, second, third = (str(sample_folder / f"{i}.png") for i in range(3))
    return [
        {"prompt": "smiling", "people": [first, second], "seed": 5},
        {"prompt": "smiling", "people": [third], "seed": 5, "name": "third"},
        {"prompt": "a child", "people": [first, second], "seed": 5},
        {"prompt": "a child", "people": [third], "seed": 6, "reference_strength": 0.4},
        {"prompt": "x", "people": [[first], [third]], "seed": 1, "name": "mixed"},
        {"prompt": "x", "people": [[first], [third]], "shares": [1, 3], "seed": 1, "name": "3:1"},
    ]


NAMES = ["000000", "third", "000002", "000003", "mixed", "3:1"]


def write_jobs(path: Path, jobs) -> Path:
    path.write_text("\n".join(json.dumps(job) for job in jobs) + "\n")
    return path


@pytest.fixture
def made(command, good, tmp_path):
    """The six images, made in one go."""
    out = tmp_path / "whole"
    said = command.jobs(write_jobs(tmp_path / "jobs.jsonl", good), out)
    assert said.status == 0, said.err
    return images(out)


def test_people_prompts_and_seeds_are_all_made(made, command, sample_folder, tmp_path):
    assert sorted(made) == sorted(NAMES)
    assert (tmp_path / "whole" / "sheet.png").exists()
    for i, name in enumerate(NAMES):
        for other in NAMES[:i]:
            assert difference(made[name], made[other]) > 0, f"{name} and {other} are one image"
    # A job is what the command with the same words makes.
    said = command.prompt(tmp_path / "one", "--prompt", "smiling", "--seed", "5")
    assert said.status == 0
    assert difference(images(tmp_path / "one")["000"], made["000000"]) == 0


def test_people_of_a_batch_may_differ(made, command, good, tmp_path):
    file = write_jobs(tmp_path / "jobs.jsonl", good[:3])
    said = command.jobs(file, tmp_path / "out", "--batch", "2")
    assert said.status == 0, said.err
    for name, image in images(tmp_path / "out").items():
        # One level: other batch sizes add up in another order.
        levels = difference(image, made[name])
        assert levels <= 1, f"{name} differs by {levels} levels"


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    made, command, good, tmp_path, monkeypatch
):
    file, out, written = write_jobs(tmp_path / "jobs.jsonl", good), tmp_path / "out", []

    def killed_at_the_fourth(path, *rest):
        if len(written) == 3:
            # What kill -9 leaves in the middle of a file.
            path.with_name(f".{path.name}.part").write_bytes(b"\x89PNG half")
            raise KeyboardInterrupt
        written.append(path)
        write_png(path, *rest)

    monkeypatch.setattr("flashface_jax.sampling.batch_runner.write_png", killed_at_the_fourth)
    assert command.jobs(file, out).status == 130
    assert sorted(images(out)) == sorted(NAMES[:3])
    before = {path: path.stat().st_mtime_ns for path in written}

    monkeypatch.setattr("flashface_jax.sampling.batch_runner.write_png", write_png)
    said = command.jobs(file, out)
    assert said.status == 0, said.err
    assert "wrote 3 images" in said.out and "kept 3 that were there already" in said.out
    assert "3.0/6" in said.err, "the bar begins with what is there"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"{name}.png" for name in NAMES), "sheet.png"]
    )
    for name, image in images(out).items():
        assert difference(image, made[name]) == 0

    said = command.jobs(file, out)
    assert said.status == 0 and "kept 6" in said.out and "wrote" not in said.out


def test_what_is_wrong_is_said_and_the_rest_goes_on(made, command, good, tmp_path):
    lines = [
        json.dumps(good[0]),
        "{no json",
        json.dumps({**good[0], "people": ["nowhere.png"], "name": "lost"}),
        json.dumps({**good[0], "hair": "red"}),
        json.dumps([1]),
        json.dumps({**good[0], "seed": "5"}),
        "",
        json.dumps({**good[2], "name": "last"}),
    ]
    file, out = tmp_path / "some.jsonl", tmp_path / "out"
    file.write_text("\n".join(lines))
    said = command.jobs(file, out)
    assert said.status == 1 and "Traceback" not in said.err
    assert len(said.errors) == 6
    for place, what in {
        f"{file}, line 2: ": "it is no JSON",
        "lost: ": "nowhere.png does not exist.",
        f"{file}, line 4: ": "There is no setting 'hair': choose among prompt, people,",
        f"{file}, line 5: ": "it is no JSON object",
        f"{file}, line 6: ": "seed is '5'; it must be a whole number.",
    }.items():
        (line,) = (line for line in said.errors if line.startswith(place))
        assert what in line
    assert said.errors[-1] == "error: 5 of 7 could not be made, as said above."
    assert sorted(images(out)) == ["000000", "last"]
    assert difference(images(out)["last"], made["000002"]) == 0


def test_an_image_of_another_job_is_never_overwritten(command, good, tmp_path):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    assert command.jobs(write_jobs(file, good[:2]), out).status == 0
    before = {path.name: path.read_bytes() for path in out.glob("[0t]*.png")}
    said = command.jobs(write_jobs(file, [{**good[0], "seed": 9}, good[1], good[2]]), out)
    assert said.status == 1
    assert said.errors[0] == (
        f"000000: {out}/000000.png was made otherwise: choose another --out, or remove it."
    )
    assert {name: (out / name).read_bytes() for name in before} == before
    assert sorted(images(out)) == ["000000", "000002", "third"]


def test_jobs_are_read_from_a_pipe_and_with_a_mark_in_front(good, tmp_path):
    text = "\ufeff" + json.dumps(good[0]) + "\r\n\r\n" + json.dumps(good[1])
    (tmp_path / "jobs.jsonl").write_text(text, newline="")
    (place, job), (second_place, second) = read_jobs(tmp_path / "jobs.jsonl")
    assert (place, second_place) == (
        f"{tmp_path}/jobs.jsonl, line 1",
        f"{tmp_path}/jobs.jsonl, line 3",
    )
    assert isinstance(job, Job) and job.prompt == "smiling" and second.name == "third"


def test_separators_inside_a_prompt_do_not_end_a_line(tmp_path):
    prompt = "one\u2028two\x85three\x0cfour"
    line = json.dumps({"prompt": prompt, "people": ["a.png"]}, ensure_ascii=False)
    (tmp_path / "jobs.jsonl").write_text(line.replace("\\f", "\\u000c"), encoding="utf-8")
    ((_, job),) = read_jobs(tmp_path / "jobs.jsonl")
    assert isinstance(job, Job) and job.prompt == prompt


FULL = Job(
    prompt="a child",
    people=(("a.png", "b.png"), ("c.png",)),
    negative_prompt="a hat",
    seed=2**32 - 1,
    reference_weights=((0.5, 2.0), (1.0,)),
    shares=(0.25, 0.75),
    faces_cropped=True,
    face=1,
    face_position=(0.1, 0.2, 0.6, 0.7),
    height=64,
    width=48,
    preset="age_change",
    settings={"steps": 4, "reference_strength": [[0.0, 0.6], [1.0, 1.2]]},
    repaint=Repaint("photo.png", box=(0.1, 0.2, 0.6, 0.7), context=2.0),
    name="me",
)


@pytest.mark.parametrize("job", [FULL, Job("", (("a.png",),)), replace(FULL, repaint=None)])
def test_a_job_is_what_its_description_says(job):
    described = json.loads(json.dumps(job.described()))
    assert parse_job(described) == job
    assert parse_job(described).described() == described


def test_settings_may_stand_beside_and_one_person_without_a_list():
    beside = parse_job({"prompt": "x", "people": ["a.png"], "steps": 4, "eta": 1})
    within = {"prompt": "x", "people": [["a.png"]], "settings": {"steps": 4, "eta": 1}}
    assert beside == parse_job(within)
    assert beside.sampling(SamplingConfig()) == SamplingConfig(steps=4, eta=1.0)


@pytest.mark.parametrize(
    ("fill", "counts"),
    [(0, None), (2, None), (3, None), (4, (2.0, 1.0, 1.0)), (8, (3.0, 3.0, 2.0))],
)
def test_few_photos_count_as_often_as_more_would(fill, counts):
    job = Job("x", (("a", "b", "c"),), fill_references=fill)
    assert job.counts(0) == counts


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, True),
        (int, 1.0),
        (float, True),
        (float, "1"),
        (float, float("nan")),
        (float, 10**400),
        (str, 1),
        (bool, 0),
        (tuple[str, ...], "ab"),
        (tuple[float, float], [1.0]),
        (str | None, 5),
        (dict[str, int], []),
        (SamplingConfig, 5),
    ],
    ids=repr,
)
def test_json_of_another_type_is_refused(kind, value):
    with pytest.raises(ValueError, match=r"^x is .*; it must be .*\.$"):
        from_json(kind, value, "x")


def test_json_is_converted_no_further_than_whole_numbers_to_numbers():
    assert from_json(float, 3, "x") == 3.0 and type(from_json(float, 3, "x")) is float
    assert from_json(tuple[tuple[float, float], ...], [[0, 1]], "x") == ((0.0, 1.0),)
    assert from_json(float | tuple[float, ...], [1, 2], "x") == (1.0, 2.0)
    with pytest.raises(ValueError, match=r"people\[0\]\[1\] is 5; it must be text\."):
        parse_job({"prompt": "x", "people": [["a", 5]]})
