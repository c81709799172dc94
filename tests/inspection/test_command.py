"""The command that looks at a dataset, on one with planted flaws."""

import base64
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.loading.draws import DrawOptions
from flashface_jax.data.loading.pipeline import ordered, photo_pool
from flashface_jax.data.loading.samples import MakeSample, SampleShape
from flashface_jax.inspection import command as inspect
from flashface_jax.inspection import run as running
from flashface_jax.inspection.measuring.samples import draw_samples, overlaid
from flashface_jax.inspection.sheets import jpeg as small_jpeg
from flashface_jax.weights.tokenizer import Tokenizer, train_tokenizer
from tests.data.planted import HOSTILE_CAPTIONS, HOSTILE_NAME, ORDINARY, PHOTOS, damaged, plant

SMALL = ["--image-size", "96", "--reference-size", "32", "--seconds", "0"]
QUICK = [*SMALL, "--clusters", "2", "--samples", "1"]
SHAPE = SampleShape(96, 32, 8)
PHOTOS_IN_ALL = (ORDINARY - 1 + 8) * PHOTOS + 1 + 30 + 8  # one ordinary person is held out
LARGEST_PAGE = 12_000_000  # bytes, with the default options
PLANTED = {
    "small": ["face_sizes", "tiny_faces", "blurred_faces"],
    "bare": ["no_landmarks", "no_captions"],
    "alone": ["few_photos"],
    "many": ["many_photos"],
    "one caption": ["equal_captions"],
    "broken": ["undecodable"],
    "twins": ["same_pictures"],
    "blurred": ["blurred_faces"],
    "cut": ["cut_faces"],
    "lying": ["steep_eyes"],
    HOSTILE_NAME: ["no_landmarks"],
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def with_crops(tmp_path_factory):
    """The same with stored face crops, and without broken photos."""
    return plant(tmp_path_factory.mktemp("crops"), "--reference-size", "32", broken=False)


@pytest.fixture(scope="module")
def inspected(planted, tmp_path_factory):
    """What the command writes, with all the photos read."""
    out = tmp_path_factory.mktemp("inspected") / "out"
    assert inspect.main([str(planted), "--out", str(out), *SMALL, "--samples", "24"]) == 0
    return out


@pytest.fixture(scope="module")
def numbers(inspected):
    return json.loads((inspected / "statistics.json").read_text())


@pytest.fixture
def unchecked():
    """Without the checker of types, which reads records at random, and damaged ones among them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def copy(dataset, folder):
    return Path(shutil.copytree(dataset, folder / "copy"))


def run(dataset, folder, *extra):
    return inspect.main([str(dataset), "--out", str(folder / "out"), *QUICK, *extra])


def shard_of(dataset, split="train"):
    (shard,) = dataset.glob(f"id_clusters-{split}.array_record-*")
    return shard


def test_statistics_equal_the_planted_ones(numbers, planted):
    train, validation = numbers["splits"]
    people = {"identities": 15, "photos": PHOTOS_IN_ALL, "alone": 1}
    assert {name: train[name] for name in people} == people
    assert train["photos_read"] == train["photos"]
    assert (validation["identities"], validation["photos"]) == (1, 6)
    assert train["bytes_on_disk"] == shard_of(planted).stat().st_size
    assert train["reference_bytes"] == 0
    counts = train["counts"]
    assert counts["unreadable record"] == 0
    assert counts["does not decode"] == 2
    assert counts["no landmarks"] == 12
    assert counts["no caption"] == 6
    assert counts["face cut by the border"] == 6
    assert counts["face under 8 pixels"] == 1
    assert counts["eye line over 40 degrees"] == 6
    assert counts["near-identical to another"] == 3
    assert counts["face blurred"] >= 6
    assert "caption cut by the text tower" not in counts, "nobody knows without a tokenizer"
    provenances = dict(train["provenances"])
    assert provenances[HOSTILE_CAPTIONS[0]] == 1 and provenances[""] == 6
    assert sum(provenances.values()) == train["photos"]
    sides = train["measures"]["picture_sides"]
    assert sides["count"] == train["photos"] - 2, "those that decode"
    assert sides["smallest"] == sides["median"] == sides["largest"] == 96


def test_the_histogram_counts_every_cluster(numbers):
    sizes = numbers["splits"][0]["measures"]["cluster_sizes"]
    edges, found = sizes["histogram"]["edges"], sizes["histogram"]["counts"]
    planted = [6] * (ORDINARY - 1 + 8) + [1, 30, 8]
    assert found == np.histogram(planted, edges)[0].tolist()
    assert (sizes["smallest"], sizes["median"], sizes["largest"]) == (1, 6, 30)


def test_planted_flaws_are_named_and_come_first(numbers):
    shown = {
        cluster["identity"]: [odd["kind"] for odd in cluster["suspicions"]]
        for cluster in numbers["shown_clusters"]
    }
    assert set(shown) == set(PLANTED), "and no ordinary person"
    for name, kinds in PLANTED.items():
        assert set(kinds) <= set(shown[name]), name
    assert next(iter(shown)) == "small", "the most kinds of suspicion first"
    assert [len(kinds) for kinds in shown.values()] == sorted(
        (len(kinds) for kinds in shown.values()), reverse=True
    )


def test_suspicions_are_told_with_their_numbers(inspected):
    text = " ".join(parsed(inspected).text)
    for words in (
        "30 photos, 5.0 times the median of 6",
        "3 of 8 faces near-identical to another",
        "2 of 6 photos do not decode",
        "all 6 photos have the same caption",
        "1 photo: training leaves this person out",
        "6 of 6 eye lines steep (up to 87 degrees)",
    ):
        assert words in text


class Page(HTMLParser):
    """Elements of a page; fails where they are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(folder):
    page = Page()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    page.close()
    assert page.open == [], "balanced"
    return page


def test_the_page_needs_nothing_else_and_runs_nothing(inspected):
    page = parsed(inspected)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:60])
    style = (inspected / "report.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert (inspected / "report.html").stat().st_size < LARGEST_PAGE


def test_hostile_text_is_shown_as_text(inspected):
    page = parsed(inspected)
    text = "".join(page.text)
    assert HOSTILE_NAME in text
    assert HOSTILE_CAPTIONS[1] in text, "as provenance"
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "main", "nav", "section", "a"),
        *("p", "h1", "h2", "h3", "div", "span", "b", "strong", "bdi", "code", "blockquote"),
        *("ul", "li", "table", "tr", "th", "td", "figure", "figcaption", "img"),
        *("svg", "text", "rect", "line"),
    }
    assert "endless" * 100 not in text and "endless" * 20 in text, "long text is cut"
    assert not {chr(0), chr(7), chr(27)} & set(text)


def test_hostile_text_formats_nothing_in_the_datasheet(inspected):
    sheet = (inspected / "datasheet.md").read_text(encoding="utf-8")
    assert "<script" not in sheet.replace("\\<script", "")
    assert "<img" not in sheet.replace("\\<img", "")
    assert "](http" not in sheet
    assert "**TO FILL IN**" in sheet and "$" not in sheet.replace("\\$", "")
    assert "flashface data remove" in sheet
    assert f"{PHOTOS_IN_ALL} photos of 15 people" in sheet


def test_the_page_says_that_it_holds_personal_data_before_all_else(inspected):
    said = [text.strip() for text in parsed(inspected).text if text.strip()]
    body = said.index("This page holds personal data:")
    assert body < said.index("Inspection of")


def test_samples_are_those_that_training_draws(planted, numbers, tmp_path):
    dataset = IdClusters(planted)
    pool = photo_pool(dataset, "train", 32)
    tokenizer = train_tokenizer(["a person"], tmp_path, 77, 600)
    trained = ordered(pool, 0, MakeSample(pool, tokenizer, SHAPE, DrawOptions()))
    drawn = draw_samples(pool, SHAPE, 0, 24)
    assert len(numbers["samples"]) == 24
    dropped = set()
    for i, (sample, said) in enumerate(zip(drawn, numbers["samples"], strict=True)):
        real = trained[i]
        np.testing.assert_array_equal(sample.pixels, real["target"])
        valid = real["reference_valid"]
        assert len(sample.crops) == valid.sum() == len(said["source_ids"]) - 1
        for crop, reference in zip(sample.crops, real["references"][valid], strict=True):
            np.testing.assert_array_equal(crop, reference)
        seen_mask = np.zeros_like(sample.mask) if "face mask" in said["dropped"] else sample.mask
        np.testing.assert_array_equal(seen_mask, real["face_mask"])
        np.testing.assert_array_equal(tokenizer([said["caption"]])[0], real["tokens"])
        assert said["source_ids"][0] == sample.target.source_id
        assert ("references" in said["dropped"]) == (not valid.any())
        dropped |= set(said["dropped"])
    assert dropped, "some of 24 samples lack something"


def test_the_page_shows_the_samples_pictures(planted, inspected):
    pool = photo_pool(IdClusters(planted), "train", 32)
    (sample,) = draw_samples(pool, SHAPE, 0, 1)
    assert not sample.draw.drop_face_mask
    shown = overlaid(sample.pixels, sample.mask, 8)
    sheet = np.asarray(Image.open(inspected / "samples.png").convert("RGB"))
    enlarged = np.asarray(Image.fromarray(shown).resize((256, 256), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(sheet[14:270, :256], enlarged)
    page = (inspected / "report.html").read_text(encoding="utf-8")
    assert base64.b64encode(small_jpeg(shown, 448)).decode() in page


def test_every_file_is_written_and_named(planted, tmp_path, capsys):
    assert run(planted, tmp_path, "--clusters", "3") == 0
    said = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("report.html", "datasheet.md", "statistics.json", "sizes.png", "samples.png"),
        *("clusters_1.png", "clusters_ordinary.png"),
    }
    assert all(str(tmp_path / "out" / name) in said for name in names)


def test_a_smaller_report_leaves_no_sheet_of_a_larger_one(planted, tmp_path):
    assert run(planted, tmp_path, "--clusters", "7") == 0
    own = tmp_path / "out" / "clusters_mine.png"
    Image.new("RGB", (8, 8)).save(own)
    assert (tmp_path / "out" / "clusters_2.png").exists()
    assert run(planted, tmp_path, "--clusters", "2") == 0
    assert not (tmp_path / "out" / "clusters_2.png").exists()
    assert own.exists(), "a picture of the user's"


def test_a_sample_reads_whole_clusters_and_says_so(planted, tmp_path):
    assert run(planted, tmp_path, "--sample", "20", "--split", "train", "--seed", "3") == 0
    (train,) = json.loads((tmp_path / "out" / "statistics.json").read_text())["splits"]
    assert 20 <= train["photos_read"] < train["photos"]
    assert train["photos"] == PHOTOS_IN_ALL, "clusters' sizes need no reading"
    assert (
        f"Of {PHOTOS_IN_ALL} photos of train (15 people), {train['photos_read']} were read"
        in "".join(parsed(tmp_path / "out").text)
    )


def test_odd_sizes_are_shown_though_they_were_not_drawn(planted, tmp_path):
    wide = ["--samples", "0", "--clusters", "20"]
    for seed in range(3):
        assert run(planted, tmp_path, "--sample", "6", "--seed", str(seed), *wide) == 0
        shown = json.loads((tmp_path / "out" / "statistics.json").read_text())["shown_clusters"]
        assert {"alone", "many"} <= {cluster["identity"] for cluster in shown}


def test_a_tokenizer_counts_captions_that_are_cut(planted, tmp_path):
    train_tokenizer(["a person with hair " * 3], tmp_path / "words", 77, 600)
    asked = ["--tokenizer", str(tmp_path / "words")]
    assert run(planted, tmp_path, *asked) == 0
    numbers = json.loads((tmp_path / "out" / "statistics.json").read_text())
    found = numbers["splits"][0]["counts"]["caption cut by the text tower"]
    records = IdClusters(planted).photos("train")
    tokens = Tokenizer.from_directory(tmp_path / "words")
    tokens.length = 10_000
    longer = [(tokens([r.caption])[0] != tokens.end_token).sum() - 1 > 75 for r in records[:]]
    assert found == sum(longer) > 0
    assert "tokens)" in "".join(parsed(tmp_path / "out").text)


def test_throughput_is_measured(with_crops, tmp_path, capsys):
    assert run(with_crops, tmp_path, "--seconds", "0.2") == 0
    rates = json.loads((tmp_path / "out" / "statistics.json").read_text())["throughput"]
    assert rates["images_per_second"] > rates["samples_per_second"] > 0
    assert rates["decoded_images_per_second"] > rates["decoded_samples_per_second"] > 0
    assert f"{rates['samples_per_second']:.1f} samples/s" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["inspect_dataset", "write_report"])
def test_ctrl_c_is_told_in_a_line(planted, tmp_path, capsys, monkeypatch, stage):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, stage, stop)
    assert run(planted, tmp_path) == 130
    said = capsys.readouterr()
    assert said.err.endswith("\nerror: stopped; the same command begins again.\n")
    assert said.out == "" and not (tmp_path / "out").exists()


def test_a_whole_dataset_verifies(with_crops, tmp_path, capsys):
    assert run(with_crops, tmp_path, "--verify") == 0
    said = capsys.readouterr()
    assert "train: verified, whole" in said.out and "validation: verified, whole" in said.out
    text = "".join(parsed(tmp_path / "out").text)
    digest = IdClusters(with_crops).metadata["contents"]["train"][:16]
    assert "train is whole:" in text and digest in text


def test_verification_names_photos_that_do_not_decode(planted, tmp_path, capsys):
    assert run(planted, tmp_path, "--verify") == 1
    said = capsys.readouterr().err
    assert said.count("does not decode") == 2
    assert "10_0.jpg" in said and "10_1.jpg" in said
    assert "error: train is damaged. The contents are those that the build wrote" in said
    assert "Traceback" not in said
    checks = json.loads((tmp_path / "out" / "statistics.json").read_text())["verifications"]
    assert [check["whole"] for check in checks] == [False, True]
    assert "train is damaged." in "".join(parsed(tmp_path / "out").text)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("verify", [True, False], ids=["verify", "look"])
def test_a_flipped_byte_is_found_and_the_rest_still_shown(with_crops, tmp_path, capsys, verify):
    dataset = copy(with_crops, tmp_path)
    shard = shard_of(dataset)
    jpeg = IdClusters(dataset).photos("train")[5].jpeg
    data = bytearray(shard.read_bytes())
    data[data.index(jpeg) + len(jpeg) // 2] ^= 1
    shard.write_bytes(data)
    asked = ["--clusters", "20", *(["--verify"] if verify else [])]
    assert run(dataset, tmp_path, *asked) == 1
    said = capsys.readouterr().err
    assert "error: 1 of the records of train that were tried cannot be read" in said
    if verify:
        assert "train: Record 5 cannot be read: Corrupted" in said
        assert "The checksum of the contents cannot be computed" in said
    assert "Traceback" not in said
    numbers = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert numbers["splits"][0]["counts"]["unreadable record"] == 1
    assert "1 of 6 records cannot be read" in "".join(parsed(tmp_path / "out").text)


def rewrite(shard, change):
    """Write a shard anew with its records changed."""
    reader = ArrayRecordReader(str(shard))
    records = [reader.read([i])[0] for i in range(reader.num_records())]
    reader.close()
    shard.unlink()
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    for record in change(records):
        writer.write(record)
    writer.close()


def put_jpeg(record, old, new):
    """Exchange the JPEG in a record for one of the same length."""
    assert record.count(old) == 1
    return record.replace(old, new.ljust(len(old), b"\0"))


def test_a_photo_damaged_after_the_build_changes_the_checksum(with_crops, tmp_path, capsys):
    dataset = copy(with_crops, tmp_path)
    photo = IdClusters(dataset).photos("train")[3]
    jpeg, broken = photo.jpeg, damaged(photo.jpeg)

    def change(records):
        return [*records[:3], put_jpeg(records[3], jpeg, broken), *records[4:]]

    rewrite(shard_of(dataset), change)
    assert run(dataset, tmp_path, "--verify", "--split", "train") == 1
    said = capsys.readouterr().err
    assert f"The photo of record 3 does not decode: {photo.source_id}" in said
    assert "error: train is damaged. The contents are not those that the build wrote" in said


def test_a_changed_face_crop_changes_the_checksum(with_crops, tmp_path, capsys):
    dataset = copy(with_crops, tmp_path)
    crops = IdClusters(dataset).references("train")
    first, second = crops[0].jpeg, crops[1].jpeg
    short, long = sorted((first, second), key=len)

    def change(records):
        place = 0 if long is first else 1
        return [put_jpeg(r, long, short) if i == place else r for i, r in enumerate(records)]

    rewrite(shard_of(dataset, "train_references"), change)
    assert run(dataset, tmp_path, "--verify", "--split", "train") == 1
    assert "The contents are not those that the build wrote" in capsys.readouterr().err


def test_photos_under_another_name_are_found(with_crops, tmp_path, capsys):
    dataset = copy(with_crops, tmp_path)
    rewrite(shard_of(dataset), lambda records: [*records[-1:], *records[:-1]])
    assert run(dataset, tmp_path, "--verify", "--split", "train") == 1
    assert "where the metadata have" in capsys.readouterr().err


def failure(arguments, capsys):
    """The error that the command ends with."""
    capsys.readouterr()
    assert inspect.main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    return line


def test_what_cannot_be_inspected_is_named(planted, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds no dataset" in failure([str(empty)], capsys)
    absent = tmp_path / "absent"
    assert f"{absent} does not exist" in failure([str(absent)], capsys)
    out = ["--out", str(tmp_path / "out")]
    error = failure([str(planted), *out, "--split", "test"], capsys)
    assert "no split 'test': choose among train, validation" in error
    error = failure([str(planted), "--out", str(planted / "report")], capsys)
    assert "is in the dataset" in error
    error = failure([str(planted), "--out", str(planted / "metadata.json")], capsys)
    assert "is in the dataset" in error
    (tmp_path / "file").write_text("")
    error = failure([str(planted), "--out", str(tmp_path / "file" / "out")], capsys)
    assert "cannot be written to" in error
    error = failure([str(planted), "--out", str(tmp_path / "file")], capsys)
    assert "cannot be written to" in error or "file" in error
    error = failure([str(planted), *out, "--image-size", "100"], capsys)
    assert "choose a multiple of 8" in error
    error = failure([str(planted), *out, "--sample", "-1"], capsys)
    assert "sample is -1; choose from 0" in error
    error = failure([str(planted), *out, "--tokenizer", str(empty)], capsys)
    assert "holds no vocab.json" in error
    assert not (tmp_path / "out").exists(), "nothing is half written"


@pytest.mark.parametrize(("kept", "named"), [(0, "is missing"), (-5000, "bytes in place of")])
def test_a_missing_or_cut_shard_is_named(planted, tmp_path, capsys, kept, named):
    dataset = copy(planted, tmp_path)
    shard = shard_of(dataset)
    whole = shard.read_bytes()
    shard.unlink()
    if kept:
        shard.write_bytes(whole[:kept])
    assert named in failure([str(dataset), "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unchecked")
def test_an_overwritten_shard_is_named(planted, tmp_path, capsys):
    dataset = copy(planted, tmp_path)
    shard = shard_of(dataset)
    shard.write_bytes(shard.read_bytes()[:-70_000] + bytes(70_000))
    assert run(dataset, tmp_path) == 1
    said = capsys.readouterr()
    assert (
        f"error: {PHOTOS_IN_ALL} of the records of train that were tried cannot be read" in said.err
    )
    assert "Traceback" not in said.err
    assert "No samples can be drawn" in "".join(parsed(tmp_path / "out").text)


@pytest.mark.slow
def test_a_browser_fetches_nothing_and_shows_the_page(inspected, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    picture = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,2000"]
    page = (inspected / "report.html").as_uri()
    subprocess.run(
        [chromium, *flags, f"--screenshot={picture}", page],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    seen = np.asarray(Image.open(picture).convert("RGB"))
    assert seen.shape == (2000, 390, 3)
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 50, "more than a blank page"
