"""Reading a built dataset: every photo at its place, errors that say what is wrong."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from flashface_jax.data.building.drawn_photos import identity_name, write_photos
from flashface_jax.data.dataset import IdClusters, find_dataset
from flashface_jax.data.loading.transforms import decode
from flashface_jax.world import SyntheticWorld
from tests.data.worlds import FACE, UPRIGHT, flat_dataset, told

COUNTS = [3, 1, 4]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return flat_dataset(tmp_path_factory.mktemp("flat"), COUNTS)


def test_photos_are_where_their_identity_says(dataset):
    photos = dataset.photos("train")
    clusters = photos.clusters
    assert len(photos) == sum(COUNTS)
    assert clusters.sizes.tolist() == COUNTS
    assert list(clusters.identities) == ["person 00", "person 01", "person 02"]
    for identity in range(len(clusters)):
        for number, place in enumerate(clusters.photos_of(identity)):
            photo = photos[place]
            assert photo.identity == clusters.identities[identity]
            picture = decode(photo)
            assert told(picture.pixels[5, 5]).tolist() == [identity, number]
            np.testing.assert_array_equal(photo.face_box, np.float32(FACE))
            np.testing.assert_array_equal(photo.landmarks, np.float32(UPRIGHT))
            assert photo.caption == f"a photo number {number}"


def test_photos_are_a_sequence_that_survives_pickling(dataset):
    photos = dataset.photos("train")
    sent = pickle.loads(pickle.dumps(photos))
    assert [photo.source_id for photo in sent] == [photo.source_id for photo in photos]
    assert photos[-1].source_id == photos[len(photos) - 1].source_id
    assert [photo.source_id for photo in photos[1:3]] == [photos[i].source_id for i in (1, 2)]
    for outside in (len(photos), -len(photos) - 1):
        with pytest.raises(IndexError, match=f"no photo {outside}: the split has {len(photos)}"):
            photos[outside]


def test_a_dataset_is_found_from_any_folder_above_it(dataset):
    assert find_dataset(dataset.path) == dataset.path
    assert find_dataset(dataset.path.parent) == dataset.path
    assert find_dataset(dataset.path.parent.parent) == dataset.path


def test_places_without_one_dataset_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"holds no dataset id_clusters: build one with"):
        IdClusters(tmp_path)
    for version in ("1.0.0", "2.0.0"):
        shutil.copytree(dataset.path, tmp_path / "id_clusters" / version)
    with pytest.raises(ValueError, match=r"holds several datasets: name one of .*1\.0\.0, "):
        IdClusters(tmp_path)


@pytest.mark.parametrize("file", ["metadata.json", "features.json", "dataset_info.json"])
@pytest.mark.parametrize("contents", ["", "{}", "no JSON", None])
def test_damaged_descriptions_are_named(dataset, tmp_path, file, contents):
    place = tmp_path / "copy"
    shutil.copytree(dataset.path, place)
    (place / file).unlink() if contents is None else (place / file).write_text(contents)
    with pytest.raises(ValueError, match=r"(is|holds) no dataset id_clusters") as caught:
        IdClusters(place)
    assert str(place) in str(caught.value)


def test_records_and_metadata_that_disagree_are_refused(dataset, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(dataset.path, place)
    metadata = json.loads((place / "metadata.json").read_text())
    metadata["clusters"]["train"]["offset"][-1] += 1
    (place / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="holds 8 records of train, but its metadata count 9"):
        IdClusters(place).photos("train")


def test_files_that_are_missing_or_cut_off_are_named(dataset, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(dataset.path, place)
    (shard,) = place.glob("*train*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"copy, train, have \d+ bytes in place of \d+: copy"):
        IdClusters(place).photos("train")
    shard.unlink()
    with pytest.raises(ValueError, match="00000-of-00001 is missing: copy the dataset again"):
        IdClusters(place).photos("train")


def test_other_file_formats_are_refused(dataset, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(dataset.path, place)
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="its files are not in the ArrayRecord format"):
        IdClusters(place)


def test_reading_needs_no_tensorflow(dataset):
    program = (
        "import sys; from pathlib import Path; from flashface_jax.data.dataset import IdClusters\n"
        f"photos = IdClusters(Path({str(dataset.path)!r})).photos('train'); photos[0]\n"
        "assert 'tensorflow' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_drawn_people_become_a_dataset_as_anybodys_photos_do(tmp_path):
    from flashface_jax.data.build import main  # noqa: PLC0415

    world = SyntheticWorld(seed=3, num_identities=3, photos_per_identity=2, image_size=64)
    write_photos(world, range(3), tmp_path / "world")
    assert main(["--source", str(tmp_path / "world"), "--out", str(tmp_path / "data")]) == 0
    photos = IdClusters(tmp_path / "data").photos("train")
    for i in range(3):
        for j, place in enumerate(photos.clusters.photos_of(i)):
            drawn, photo = world.photo(i, j), photos[place]
            assert photo.identity == identity_name(i)
            assert (photo.caption, photo.source_id) == (drawn.caption, drawn.source_id)
            np.testing.assert_array_equal(photo.face_box, drawn.face_box)
            np.testing.assert_array_equal(photo.landmarks, drawn.landmarks)
            difference = np.abs(decode(photo).pixels.astype(int) - drawn.image).mean()
            assert difference < 3, f"{difference:.2f} levels of 255 through JPEG, 3 allowed"
