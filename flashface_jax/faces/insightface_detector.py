"""The detector of the insightface library: SCRFD, run by ONNX Runtime."""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flashface_jax.faces.detect import Face, largest_first

PACK = "buffalo_l"
# Scores, boxes and landmarks at three strides, or at five.
OUTPUTS_WITH_LANDMARKS = (9, 15)
# SCRFD looks at the photo at this side too; a photo that many times longer than wide vanishes.
SMALLEST_INPUT = 128
REMEDY = "give their folder with --face-models DIR, or use --detector cascade"


class InsightFaceDetector:
    """Finds faces with the SCRFD detector of an insightface model pack; nothing else is loaded.

    The library is MIT-licensed; the models that its makers offer are for non-commercial research.

    Args:
        models: folder of a model pack (buffalo_l, buffalo_s, antelopev2, ...), or a detector's
            .onnx file. Without it the library downloads buffalo_l once, about 300 MB.

    Raises:
        ValueError: the library or the models are missing, damaged or no detector.

    Source: Guo et al., Sample and Computation Redistribution for Efficient Face Detection,
    arXiv 2105.04714. The released code detects with RetinaFace-R50 instead.
    """

    def __init__(self, models: Path | None = None) -> None:
        try:
            import insightface  # noqa: PLC0415  (optional)
        except ImportError as error:
            raise ValueError(
                f"The face detector insightface cannot be imported ({error}): "
                "pip install 'flashface-jax[faces]', or use --detector cascade."
            ) from error
        self._file = find_detector(download_pack() if models is None else models)
        self._name = f"insightface {insightface.__version__}"
        try:
            self._scrfd = insightface.model_zoo.SCRFD(model_file=str(self._file))
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise ValueError(f"{_damaged(self._file)} ({error}).") from error

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """All faces that score 0.5 or more, the largest first.

        In a photo over 128 times as long as wide none is looked for.
        """
        height, width, _ = image.shape
        if max(height, width) > SMALLEST_INPUT * min(height, width):
            return []
        bgr = np.ascontiguousarray(image[..., ::-1])
        boxes, landmarks = self._scrfd.detect(bgr)
        faces = [
            Face(box[:4], points, float(np.clip(box[4], 0, 1)))
            for box, points in zip(boxes, landmarks, strict=True)
            if (box[2:4] > box[:2]).all()
        ]
        return largest_first(faces)

    def describe(self) -> str:
        """Name and model in one line."""
        return f"{self._name}: SCRFD, {self._file.parent.name}/{self._file.name}"


def download_pack() -> Path:
    """The folder of the library's own model pack, downloaded if it is not there yet.

    Raises:
        ValueError: it cannot be downloaded.
    """
    from insightface.utils import ensure_available  # noqa: PLC0415  (optional)

    try:
        return Path(ensure_available("models", PACK))
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The face detector's models ({PACK}) cannot be downloaded ({error}): {REMEDY}."
        ) from error


def find_detector(models: Path) -> Path:
    """The file of a model pack that detects faces and their landmarks.

    Raises:
        ValueError: there is none, or a file is damaged.
    """
    if not models.exists():
        raise ValueError(f"The face models {models} do not exist: {REMEDY}.")
    if (models / "manifest.json").exists():
        raise ValueError(
            f"{models} is a model pack with a manifest, which is not read: "
            f"give one without, such as {PACK}, or its detector's .onnx file."
        )
    files = [models] if models.is_file() else sorted(models.glob("*.onnx"))
    for file in files:
        if _count_outputs(file) in OUTPUTS_WITH_LANDMARKS:
            return file
    raise ValueError(
        f"{models} holds no .onnx file of a face detector with landmarks: "
        f"give the folder of an insightface model pack such as {PACK}, or use --detector cascade."
    )


def _count_outputs(file: Path) -> int:
    """Number of outputs of a model, read without building it."""
    import onnx  # noqa: PLC0415  (optional)
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        outputs = len(onnx.load(str(file), load_external_data=False).graph.output)
    except (DecodeError, OSError) as error:
        raise ValueError(f"{_damaged(file)} ({error}).") from error
    if outputs == 0:
        raise ValueError(f"{_damaged(file)} (it has no outputs).")
    return outputs


def _damaged(file: Path) -> str:
    return (
        f"The face model {file} is damaged: get the model pack {PACK} again, or use "
        "--detector cascade"
    )
