"""The page's parts with pictures: clusters, and training samples."""

import base64

from flashface_jax.inspection.measuring.samples import SampleView
from flashface_jax.inspection.page.markup import attribute, counted, text
from flashface_jax.inspection.report import Report
from flashface_jax.inspection.sheets import SIDE, DrawnCluster, DrawnPhoto, Pixels, jpeg

TARGET_SIDE, REFERENCE_SIDE = 448, 160


def suspicious_clusters(report: Report) -> str:
    """The oddest clusters, and why they are odd."""
    if not report.suspicious:
        return "<p>Nothing odd was found among the clusters read.</p>"
    total, shown = report.suspicious_total, len(report.suspicious)
    all_or_some = "all are shown" if shown == total else f"the oddest {shown} are shown"
    said = (
        f"{counted(total, 'cluster')} of those read, or of an odd size, "
        f"{'looks' if total == 1 else 'look'} odd; {all_or_some}, those with the most kinds of "
        "suspicion first. Photos that show it come first; face box yellow, landmarks blue. None "
        "of this is proof."
    )
    return f"<p>{said}</p>" + "".join(_cluster(drawn) for drawn in report.suspicious)


def ordinary_clusters(report: Report) -> str:
    """Some clusters about which nothing is odd; empty if there are none."""
    if not report.ordinary:
        return ""
    said = "Nothing odd was measured of these, drawn at random: do they each show one person?"
    return f"<p>{said}</p>" + "".join(_cluster(drawn) for drawn in report.ordinary)


def _cluster(drawn: DrawnCluster) -> str:
    cluster = drawn.cluster
    odd = "".join(f"<li>{text(suspicion.words)}</li>" for suspicion in cluster.found)
    photos = "".join(_photo(photo) for photo in drawn.photos)
    return (
        f'<section class="card"><h3>{text(cluster.name)}</h3>'
        f'<p class="soft">{text(cluster.split)}, {counted(cluster.photos, "photo")}</p>'
        + (f'<ul class="odd">{odd}</ul>' if odd else "")
        + f'<div class="photos">{photos}</div></section>'
    )


def _photo(photo: DrawnPhoto) -> str:
    name = attribute(photo.source_id)
    picture = '<div class="blank">cannot be shown</div>'
    if photo.pixels is not None:
        picture = _image(photo.pixels, SIDE, photo.source_id)
    remarks = f"<figcaption><b>{', '.join(photo.remarks)}</b></figcaption>" if photo.remarks else ""
    return f'<figure title="{name}">{picture}{remarks}</figure>'


def _image(pixels: Pixels, most: int, alternative: str) -> str:
    data = base64.b64encode(jpeg(pixels, most)).decode()
    return f'<img alt="{attribute(alternative)}" src="data:image/jpeg;base64,{data}">'


def training_samples(report: Report) -> str:
    """Training samples; empty if none were asked for."""
    if report.samples_problem:
        return f"<p>No samples can be drawn: {text(report.samples_problem)}</p>"
    if not report.samples:
        return ""
    said = (
        f"The first samples that training draws from {text(report.sampled_split)} with seed "
        f"{report.seed}, with the paper's drop rates. The yellow square is the face mask."
    )
    return f"<p>{said}</p>" + "".join(_sample(sample) for sample in report.samples)


def _sample(sample: SampleView) -> str:
    target, *references = sample.source_ids
    pairs = zip(references, sample.references, strict=True)
    crops = "".join(
        f"<figure>{_image(crop, REFERENCE_SIDE, name)}</figure>" for name, crop in pairs
    )
    dropped = "".join(f"<li>{name} dropped</li>" for name in sample.dropped)
    caption = (
        text(sample.caption, 600) if sample.caption else '<span class="soft">empty prompt</span>'
    )
    tokens = f" ({sample.tokens} tokens)" if sample.tokens else ""
    return (
        f'<section class="card sample"><figure>{_image(sample.target, TARGET_SIDE, target)}'
        f"<figcaption>{text(target)}</figcaption></figure><div><h3>{text(sample.name)}</h3>"
        + (f'<ul class="odd">{dropped}</ul>' if dropped else "")
        + f'<p class="soft">Caption{tokens}</p><blockquote>{caption}</blockquote>'
        f'<p class="soft">{counted(len(references), "reference")}</p>'
        f'<div class="references">{crops}</div></div></section>'
    )
