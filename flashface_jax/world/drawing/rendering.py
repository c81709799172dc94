"""From identity and attributes to a photo: image, face box and landmarks."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32

from flashface_jax.world.attributes import PhotoAttributes
from flashface_jax.world.drawing import accessories, features, head
from flashface_jax.world.drawing.canvas import Pixels, Shape, corners, paint
from flashface_jax.world.drawing.clothes import body
from flashface_jax.world.drawing.hair import hair
from flashface_jax.world.drawing.layout import FaceLayout, face_layout
from flashface_jax.world.drawing.light import shade
from flashface_jax.world.drawing.pose import Camera, project_shapes
from flashface_jax.world.drawing.scenery import paint_scenery
from flashface_jax.world.identity import Identity

SIZES = (64, 768)  # smallest and largest image side


def _canvas_side(size: int) -> int:
    """Small pictures are drawn larger, since OpenCV thickens what it paints by half a pixel."""
    return size * min(3, max(1, 640 // size))


@dataclass(frozen=True)
class Rendering:
    """A drawn photo.

    Attributes:
        image: RGB.
        face_box: x1, y1, x2, y2 in pixels, hairline to chin and cheek to cheek, inside the image.
        landmarks: x, y in pixels of left eye, right eye, nose tip, left and right mouth corner;
            left and right as seen in the image.
    """

    image: Pixels
    face_box: Float32[np.ndarray, "4"]
    landmarks: Float32[np.ndarray, "5 2"]


def _head_camera(attributes: PhotoAttributes, layout: FaceLayout) -> Camera:
    return Camera(
        center=(attributes.center_x, attributes.center_y),
        zoom=attributes.face_size / 2,
        yaw=math.radians(attributes.yaw),
        pitch=math.radians(attributes.pitch),
        roll=math.radians(attributes.roll),
        half_width=layout.half_width,
    )


def _body_camera(head_camera: Camera) -> Camera:
    """Keeps the body upright below a tilted head: they meet at the throat."""
    x, y = head_camera.project(corners((0.0, 0.8)), np.zeros(1))[0]
    # A turned chin moves ahead of the body; following halfway keeps the neck below it.
    x += 0.15 * head_camera.zoom * math.sin(head_camera.yaw)
    center = (float(x), float(y) - 0.8 * head_camera.zoom)
    return Camera(center, head_camera.zoom, 0.0, 0.0, 0.0, head_camera.half_width)


def _person(identity: Identity, attributes: PhotoAttributes, layout: FaceLayout) -> list[Shape]:
    """All shapes of the person, back to front, in fractions of the image side."""
    camera = _head_camera(attributes, layout)
    hair_shapes = hair(identity, layout)
    bare = attributes.headwear in ("none", "headphones")
    clothes = [*body(attributes, layout), *accessories.scarf(attributes)]
    return [
        *project_shapes(hair_shapes.behind, camera),
        *project_shapes(clothes, _body_camera(camera)),
        *project_shapes(
            [
                *head.ears(layout, identity.ear_size, camera.yaw),
                *head.face_skin(layout),
                *head.wrinkles(layout),
                *head.skin_marks(identity, layout),
                *([] if attributes.age == "child" else head.facial_hair(identity, layout)),
                *features.mouth(layout, identity.lip_redness),
                *features.nose(layout),
                *features.eyes(layout, identity.eye_color),
                *features.brows(layout),
                *accessories.mask(attributes, layout),
                *(hair_shapes.top if bare else []),
                *hair_shapes.front,
                *accessories.earrings(attributes, layout, camera.yaw),
                *accessories.eyewear(attributes, layout),
                *accessories.headwear(attributes, layout),
            ],
            camera,
        ),
    ]


def _landmarks(camera: Camera, layout: FaceLayout) -> Float32[np.ndarray, "5 2"]:
    """Fractions of the image side."""
    mouth_y = layout.mouth_y - 0.65 * layout.mouth_curve
    points = corners(
        (-layout.eye_x, layout.eye_y),
        (layout.eye_x, layout.eye_y),
        (0.0, layout.nose_y),
        (-layout.mouth_width, mouth_y),
        (layout.mouth_width, mouth_y),
    )
    lift = np.array([0.0, 0.0, 0.22, 0.0, 0.0])
    return camera.project(points, camera.surface(points) + lift).astype(np.float32)


def render(identity: Identity, attributes: PhotoAttributes, size: int) -> Rendering:
    """Draws a photo; nothing is random, and the same photo looks alike at every size.

    Args:
        identity: who is in it.
        attributes: everything else about it.
        size: image side in pixels, 64 to 768.

    Raises:
        ValueError: the size is outside its range.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size is {size} but must lie between {SIZES[0]} and {SIZES[1]} pixels.")
    layout = face_layout(identity, attributes)
    camera = _head_camera(attributes, layout)
    side = _canvas_side(size)
    canvas = np.empty((side, side, 4), np.uint8)
    paint_scenery(canvas, attributes)
    paint(canvas, _person(identity, attributes, layout), person=True)
    drawing = np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA))
    image = shade(drawing, attributes, camera.center, 1.45 * camera.zoom)

    outline = head.face_outline(layout)
    outline = camera.project(outline, camera.surface(outline))
    box = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
    return Rendering(
        image=image,
        face_box=(np.clip(box, 0, 1) * size).astype(np.float32),
        landmarks=np.clip(_landmarks(camera, layout), 0, 1) * np.float32(size),
    )
