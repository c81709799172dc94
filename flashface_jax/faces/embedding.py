"""What a face embedder is, and ArcFace as the insightface library runs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Complex, Float32, Real, UInt8

from flashface_jax.faces.detect import Face

SIDE = 112
# Where ArcFace wants eyes, nose and mouth's corners in its 112x112 pixels, as its authors' models
# were trained.
PLACES = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


@runtime_checkable
class FaceEmbedder(Protocol):
    """Turns faces into vectors, alike for one person."""

    def embed(
        self, image: UInt8[np.ndarray, "H W 3"], faces: Sequence[Face]
    ) -> Float32[np.ndarray, "faces dims"]:
        """Unit vectors of an RGB photo's faces, at least one."""
        ...

    def describe(self) -> str:
        """Name and model in one line."""
        ...


class ArcFaceEmbedder:
    """The recognition model of an insightface model pack: ArcFace, 512 numbers a face.

    Args:
        models: folder of the model pack.

    Raises:
        ValueError: the library or the model is missing or damaged.

    Source: Deng et al., ArcFace, arXiv 1801.07698; the paper's is an R101, which the pack
    antelopev2 comes close to.
    """

    def __init__(self, models: Path) -> None:
        file = find_recogniser(models)
        import insightface  # noqa: PLC0415  (optional; find_recogniser told if it is missing)

        try:
            self._arcface = insightface.model_zoo.ArcFaceONNX(model_file=str(file))
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise ValueError(f"The recognition model {file} is damaged ({error}).") from error
        self._name = (
            f"insightface {insightface.__version__}: ArcFace, {file.parent.name}/{file.name}"
        )

    def embed(
        self, image: UInt8[np.ndarray, "H W 3"], faces: Sequence[Face]
    ) -> Float32[np.ndarray, "faces dims"]:
        """Unit vectors of a photo's faces; one face at a time, as some models take only one."""
        crops = [align(image, face.landmarks)[..., ::-1] for face in faces]  # the library takes BGR
        found = np.concatenate([self._arcface.get_feat(crop) for crop in crops]).astype(np.float32)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError(f"{self._name} gives no finite numbers: take another model pack.")
        return np.asarray(found / lengths)

    def describe(self) -> str:
        """Name and model in one line."""
        return self._name


def align(
    image: UInt8[np.ndarray, "H W 3"], landmarks: Real[np.ndarray, "5 2"]
) -> UInt8[np.ndarray, "112 112 3"]:
    """The face turned, scaled and moved so that its landmarks come to lie where ArcFace wants them.

    The similarity transform with the least squared distances; what lies outside the photo is black.
    """
    found, wanted = _as_complex(landmarks), _as_complex(PLACES)
    around = found - found.mean()
    spread = max(float(np.vdot(around, around).real), np.finfo(float).tiny)
    turn = np.vdot(around, wanted - wanted.mean()) / spread
    shift = wanted.mean() - turn * found.mean()
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), borderValue=0.0), np.uint8)


def find_recogniser(models: Path) -> Path:
    """The file of a model pack that embeds faces: one picture of 112x112 in, one vector out.

    Raises:
        ValueError: there is none, or a file is damaged.
    """
    try:
        import insightface  # noqa: F401, PLC0415  (optional)
        import onnx  # noqa: PLC0415  (optional)
        from google.protobuf.message import DecodeError  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"The face embedder cannot be imported ({error}): pip install 'flashface-jax[faces]'."
        ) from error
    if not models.is_dir():
        raise ValueError(
            f"The face models {models} are no folder: give --models DIR, or leave "
            "it out to download buffalo_l."
        )
    for file in sorted(models.glob("*.onnx")):
        try:
            graph = onnx.load(str(file), load_external_data=False).graph
        except (DecodeError, OSError) as error:
            raise ValueError(f"The face model {file} is damaged ({error}).") from error
        inputs = [[d.dim_value for d in one.type.tensor_type.shape.dim] for one in graph.input]
        if len(graph.output) == 1 and any(shape[1:] == [3, SIDE, SIDE] for shape in inputs):
            return file
    raise ValueError(
        f"{models} holds no .onnx file of an ArcFace model ({SIDE}x{SIDE} pixels in, one output): "
        "give the folder of an insightface model pack such as buffalo_l or antelopev2."
    )


def _as_complex(points: Real[np.ndarray, "5 2"]) -> Complex[np.ndarray, "5"]:
    # As complex numbers, a turn with a scaling is one factor.
    return np.asarray(points @ np.array([1, 1j]))
