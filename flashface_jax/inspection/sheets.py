"""Photos of clusters with face box and landmarks drawn on them, for the page and as PNG files."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from flashface_jax.common.contact_sheet import MARK, contact_sheet, is_sheet
from flashface_jax.common.files import atomic_file
from flashface_jax.data.dataset import PhotoRecord, Photos
from flashface_jax.data.loading.transforms import UndecodableError, decode
from flashface_jax.inspection.measuring.clusters import Cluster
from flashface_jax.inspection.measuring.reading import read_record
from flashface_jax.inspection.measuring.samples import SampleView

Pixels = UInt8[np.ndarray, "_ _ 3"]

SIDE = 192  # of a drawn photo, in pixels
QUALITY = 80
PHOTOS_OF_A_CLUSTER = 10
CLUSTERS_OF_A_SHEET = 6
LONGEST_TITLE = 180
BOX, POINT, EDGE = (255, 210, 0), (0, 230, 255), (0, 0, 0)
REMARKS = {
    "unreadable": "unreadable",
    "undecodable": "does not decode",
    "same_pictures": "near-identical",
    "face_sizes": "extreme size",
    "tiny_faces": "tiny",
    "blurred_faces": "blurred",
    "cut_faces": "cut",
    "steep_eyes": "steep",
    "no_landmarks": "no landmarks",
    "no_captions": "no caption",
}
"""What is said below a photo that shows a suspicion."""


@dataclass(frozen=True)
class DrawnPhoto:
    """A photo of a cluster as it is shown.

    Attributes:
        source_id: of the photo; its position where its record cannot be read.
        remarks: what is odd about it.
        pixels: reduced, with box and landmarks; None if there is nothing to show.
    """

    source_id: str
    remarks: tuple[str, ...]
    pixels: Pixels | None


@dataclass(frozen=True)
class DrawnCluster:
    """A cluster with some of its photos."""

    cluster: Cluster
    photos: tuple[DrawnPhoto, ...]


def draw_cluster(photos: Photos, cluster: Cluster) -> DrawnCluster:
    """Read some photos of a cluster again, those that show something odd first, and draw them."""
    drawn = []
    for position in chosen_positions(cluster):
        odd = [odd.kind for odd in cluster.found if position in odd.positions]
        remarks = tuple(REMARKS[kind] for kind in odd)
        record = read_record(photos, position)
        if isinstance(record, str):
            drawn.append(DrawnPhoto(f"record {position}", remarks, None))
        else:
            drawn.append(DrawnPhoto(record.source_id, remarks, marked(record)))
    return DrawnCluster(cluster, tuple(drawn))


def chosen_positions(cluster: Cluster, most: int = PHOTOS_OF_A_CLUSTER) -> list[int]:
    """Some photos of a cluster: of each suspicion in turn, then others, evenly spread."""
    showing = [odd.positions for odd in cluster.found if odd.positions]
    rounds = max(map(len, showing), default=0)
    # Pictures that are the same come in pairs.
    turns = [odd[i : i + 2] for i in range(0, rounds, 2) for odd in showing]
    chosen = list(dict.fromkeys(position for turn in turns for position in turn))[:most]
    others = [p for p in cluster.facts["position"].tolist() if p not in set(chosen)]
    places = np.linspace(0, len(others) - 1, min(most - len(chosen), len(others))).round()
    return chosen + [others[int(place)] for place in places]


def marked(record: PhotoRecord) -> Pixels | None:
    """A photo, reduced, with its face box and landmarks; None if it does not decode."""
    try:
        pixels = decode(record).pixels
    except UndecodableError:
        return None
    scale = SIDE / max(pixels.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(small)
    _draw_box(draw, record.face_box * np.float32(scale))
    for x, y in [] if record.landmarks is None else (record.landmarks * scale).tolist():
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), POINT, EDGE)
    return np.asarray(small)


def _draw_box(draw: ImageDraw.ImageDraw, box: Float32[np.ndarray, "4"]) -> None:
    """A yellow frame with a black one around it, which is seen on any ground."""
    x1, y1, x2, y2 = box.clip(-1e4, 1e4).tolist()
    draw.rectangle((x1 - 1, y1 - 1, max(x2, x1) + 1, max(y2, y1) + 1), outline=EDGE)
    draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=BOX, width=2)


def jpeg(pixels: Pixels, most: int) -> bytes:
    """A small JPEG, no side longer than asked."""
    image = Image.fromarray(pixels)
    image.thumbnail((most, most), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def cluster_sheets(clusters: Sequence[DrawnCluster]) -> list[Image.Image]:
    """Contact sheets of clusters, one a row, with their suspicions above them."""
    starts = range(0, len(clusters), CLUSTERS_OF_A_SHEET)
    return [_cluster_sheet(clusters[i : i + CLUSTERS_OF_A_SHEET]) for i in starts]


def _cluster_sheet(clusters: Sequence[DrawnCluster]) -> Image.Image:
    rows = [
        [_crossed_out() if photo.pixels is None else photo.pixels for photo in drawn.photos]
        for drawn in clusters
    ]
    padded = [[*row, *[None] * (PHOTOS_OF_A_CLUSTER - len(row))] for row in rows]
    return contact_sheet(padded, cell=SIDE, row_titles=[_title(c.cluster) for c in clusters])


def _title(cluster: Cluster) -> str:
    odd = "; ".join(suspicion.words for suspicion in cluster.found) or "nothing odd"
    name = " ".join(cluster.name.split())[:60]
    return f"{name} ({cluster.split}, {cluster.photos}): {odd}"[:LONGEST_TITLE]


def _crossed_out() -> Pixels:
    """What stands for a photo that cannot be shown."""
    blank = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    draw = ImageDraw.Draw(blank)
    draw.line((0, 0, SIDE, SIDE), (200, 200, 200), 3)
    draw.line((0, SIDE, SIDE, 0), (200, 200, 200), 3)
    return np.asarray(blank)


def sample_sheet(samples: Sequence[SampleView]) -> Image.Image:
    """A contact sheet of training samples: a row each, the target and its references."""
    rows = [[sample.target, *sample.references] for sample in samples]
    titles = [_sample_title(sample) for sample in samples]
    return contact_sheet(rows, cell=256, row_titles=titles)


def _sample_title(sample: SampleView) -> str:
    dropped = f" [dropped: {', '.join(sample.dropped)}]" if sample.dropped else ""
    name, caption = (" ".join(text.split()) for text in (sample.name, sample.caption))
    return f"{name[:60]}{dropped}: {caption}"[:LONGEST_TITLE]


def write_png(path: Path, image: Image.Image) -> Path:
    """Write a PNG that `is_sheet` knows; a file that exists is whole."""
    info = PngInfo()
    info.add_text(*MARK)
    with atomic_file(path) as draft:
        image.save(draft, format="PNG", pnginfo=info)
    return path


def remove_stale(directory: Path, written: Iterable[Path]) -> None:
    """Remove sheets of clusters that an earlier inspection wrote and this one did not."""
    kept = set(written)
    for path in directory.glob("clusters_*.png"):
        if path not in kept and is_sheet(path):
            path.unlink()
