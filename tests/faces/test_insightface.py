"""The insightface detector, driven by a small SCRFD model made on the spot.

The model has the nine outputs of an SCRFD detector with landmarks (scores, box distances and
landmark offsets at strides 8, 16 and 32, two anchors a place). At stride 16 its first anchor fires
on red cells, its second on green ones; boxes and landmarks lie at known distances from the cell.
"""

import importlib.util
import sys

import numpy as np
import pytest

from flashface_jax.faces.detect import FaceDetector
from flashface_jax.faces.insightface_detector import InsightFaceDetector, find_detector

MISSING = [name for name in ("insightface", "onnx") if importlib.util.find_spec(name) is None]
needs_insightface = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} missing: pip install 'flashface-jax[faces]'"
)
STRIDES = (8, 16, 32)
# Of the two anchors, in strides: distances from the place to left, top, right, bottom ...
DISTANCES = np.array([[2, 3, 4, 5], [1, 1, 2, 2]], np.float32)
# ... and offsets of the landmarks, x and y in turn.
OFFSETS = np.array([[-1, -1, 2, -0.5, 0, 1, -1, 3, 2, 3.5], [0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1]])
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def write_scrfd(path, outputs=9, size=640):
    """Writes an SCRFD model; with 6 outputs it has no landmarks."""
    from onnx import TensorProto, checker, helper, numpy_helper, save  # noqa: PLC0415

    kinds = ["score", "box", "landmarks"][: outputs // 3]
    widths = {"score": 1, "box": 4, "landmarks": 10}
    nodes, weights = [], []
    for stride in STRIDES:
        pool = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["input"], [f"cells{stride}"], **pool))
        on = 40.0 if stride == 16 else 0.0
        # A pure colour scores 3 with its own weights, any other cell at most 1.
        colors = on * np.array([[1, -1, -1], [-1, 1, -1]], np.float32)
        tables = {
            "score": (colors, np.full(2, -2 * on if on else -20.0)),
            "box": (np.zeros((8, 3)), DISTANCES.ravel()),
            "landmarks": (np.zeros((20, 3)), OFFSETS.ravel()),
        }
        for kind in kinds:
            name, width = f"{kind}{stride}", widths[kind]
            matrix, bias = tables[kind]
            for suffix, value in [
                ("w", np.float32(matrix)[..., None, None]),
                ("b", np.float32(bias)),
                ("shape", np.array([-1, width])),
            ]:
                weights.append(numpy_helper.from_array(value, f"{name}_{suffix}"))
            last = f"{name}_rows" if kind == "score" else name
            nodes += [
                helper.make_node(
                    "Conv", [f"cells{stride}", f"{name}_w", f"{name}_b"], [f"{name}0"]
                ),
                helper.make_node("Transpose", [f"{name}0"], [f"{name}1"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}1", f"{name}_shape"], [last]),
            ]
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [last], [name]))
    float32 = TensorProto.FLOAT
    results = [
        helper.make_tensor_value_info(f"{kind}{stride}", float32, [None, widths[kind]])
        for kind in kinds
        for stride in STRIDES
    ]
    photo = helper.make_tensor_value_info("input", float32, [1, 3, size, size])
    graph = helper.make_graph(nodes, "scrfd", [photo], results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    save(model, path)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """The folder of a model pack: a model that detects nothing, and a detector."""
    folder = tmp_path_factory.mktemp("buffalo_tiny")
    write_scrfd(folder / "1k3d68.onnx", outputs=3)
    write_scrfd(folder / "det_tiny.onnx")
    return folder


@pytest.fixture(scope="module")
def detector(pack):
    return InsightFaceDetector(pack)


def photo_with(cells, side=640):
    """A grey photo with cells of 16 pixels, scaled, of given colours: (row, column, colour)."""
    image = np.full((640, 640, 3), 120, np.uint8)
    for row, column, color in cells:
        image[16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)] = color
    step = 640 // side
    return image[::step, ::step]


@needs_insightface
def test_boxes_and_landmarks_come_back_in_pixels_of_the_photo(detector):
    assert isinstance(detector, FaceDetector)
    (face,) = detector.detect(photo_with([(10, 20, RED)]))
    corner = 16 * np.array([20, 10])
    box = np.concatenate([corner - 16 * DISTANCES[0, :2], corner + 16 * DISTANCES[0, 2:]])
    np.testing.assert_allclose(face.box, box, rtol=0, atol=1e-3)
    landmarks = corner + 16 * OFFSETS[0].reshape(5, 2)
    np.testing.assert_allclose(face.landmarks, landmarks, rtol=0, atol=1e-3)
    assert 0.99 < face.score <= 1


@needs_insightface
def test_a_photo_of_another_size_gives_its_own_pixels(detector):
    cells = [(10, 20, RED)]
    (large,), (small,) = detector.detect(photo_with(cells)), detector.detect(photo_with(cells, 320))
    np.testing.assert_allclose(2 * small.box, large.box, rtol=0, atol=1e-3)
    np.testing.assert_allclose(2 * small.landmarks, large.landmarks, rtol=0, atol=1e-3)


@needs_insightface
def test_a_wide_photo_gives_its_own_pixels(detector):
    photo = photo_with([(4, 20, RED)])[:320]
    (face,) = detector.detect(photo)
    np.testing.assert_allclose(face.box, [288, 16, 384, 144], rtol=0, atol=1e-3)


@needs_insightface
def test_the_largest_face_comes_first_and_colours_are_not_swapped(detector):
    cells = [(30, 5, GREEN), (10, 20, RED), (20, 30, BLUE)]
    faces = detector.detect(photo_with(cells))
    assert [round(face.width) for face in faces] == [96, 48], "blue is no face"
    np.testing.assert_allclose(faces[1].box[:2], [64, 464], rtol=0, atol=1e-3)


@needs_insightface
@pytest.mark.parametrize("shape", [(1, 1), (1, 4096), (4096, 20), (64, 64)])
def test_a_photo_without_a_face_has_none(detector, shape):
    assert detector.detect(np.full((*shape, 3), 120, np.uint8)) == []


@needs_insightface
def test_the_description_names_library_and_model_in_one_line(detector, pack):
    import insightface  # noqa: PLC0415

    said = detector.describe()
    assert "\n" not in said
    assert said == f"insightface {insightface.__version__}: SCRFD, {pack.name}/det_tiny.onnx"


@needs_insightface
def test_the_detectors_file_may_be_named_itself(detector, pack):
    same = InsightFaceDetector(pack / "det_tiny.onnx")
    assert same.describe() == detector.describe()


@needs_insightface
def test_a_model_that_takes_any_size_finds_a_close_face_too(tmp_path):
    """Such models look at the photo at 128 and at 640 pixels."""
    write_scrfd(tmp_path / "det.onnx", size=None)
    photo = photo_with([(r, c, RED) for r in range(10, 15) for c in range(20, 25)])
    faces = InsightFaceDetector(tmp_path).detect(photo)
    # At 128 pixels the red block is one cell: distances count five times as much.
    np.testing.assert_allclose(faces[0].box, [160, -80, 640, 560], rtol=0, atol=1e-3)


def test_a_missing_package_is_named_with_both_remedies(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(ValueError, match=r"pip install 'flashface-jax\[faces\]'") as error:
        InsightFaceDetector()
    assert "--detector cascade" in str(error.value)


def test_a_missing_folder_is_named_with_both_remedies(tmp_path):
    with pytest.raises(ValueError, match="nowhere do not exist") as error:
        find_detector(tmp_path / "nowhere")
    assert "--face-models DIR" in str(error.value) and "--detector cascade" in str(error.value)


def test_a_folder_without_models_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.onnx file of a face detector") as error:
        find_detector(tmp_path)
    assert str(tmp_path) in str(error.value) and "buffalo_l" in str(error.value)


def test_a_pack_with_a_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="model pack with a manifest, which is not read"):
        find_detector(tmp_path)


@needs_insightface
def test_a_detector_without_landmarks_does_not_serve(tmp_path):
    write_scrfd(tmp_path / "det.onnx", outputs=6)
    with pytest.raises(ValueError, match="a face detector with landmarks"):
        InsightFaceDetector(tmp_path)


@needs_insightface
@pytest.mark.parametrize("kept", [0, 1, 500, -200])
def test_a_truncated_model_is_named(pack, tmp_path, kept):
    file = tmp_path / "det.onnx"
    file.write_bytes((pack / "det_tiny.onnx").read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"det\.onnx is damaged: get the model pack") as error:
        InsightFaceDetector(tmp_path)
    assert "--detector cascade" in str(error.value)


@needs_insightface
def test_a_model_that_cannot_be_built_is_named(pack, tmp_path):
    import onnx  # noqa: PLC0415

    model = onnx.load(str(pack / "det_tiny.onnx"))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, str(tmp_path / "det.onnx"))
    with pytest.raises(ValueError, match=r"det\.onnx is damaged"):
        InsightFaceDetector(tmp_path)


@needs_insightface
def test_a_download_that_fails_is_named_with_both_remedies(monkeypatch, tmp_path, capsys):
    """Through a proxy on a closed port the library's own download meets a machine off line."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"models \(buffalo_l\) cannot be downloaded") as error:
        InsightFaceDetector()
    assert "--face-models DIR" in str(error.value) and "--detector cascade" in str(error.value)
    assert "\n" not in str(error.value)


@needs_insightface
def test_models_that_were_downloaded_before_are_found(monkeypatch, tmp_path, pack):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".insightface" / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    (folder / "det_10g.onnx").write_bytes((pack / "det_tiny.onnx").read_bytes())
    assert InsightFaceDetector().describe().endswith("SCRFD, buffalo_l/det_10g.onnx")
