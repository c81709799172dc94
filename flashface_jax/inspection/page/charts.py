"""Histograms as bars: in SVG for the page, and as a picture."""

import html

from PIL import Image, ImageDraw, ImageFont

from flashface_jax.inspection.measuring.statistics import Histogram, Measure

WIDTH, HEIGHT = 400, 170
LEFT, RIGHT, TOP, BOTTOM = 4, 4, 24, 24
WIDEST = 80.0
LABELS = 5  # at most, below the bars
BACKGROUND, BAR, INK = (255, 255, 255), (70, 120, 190), (40, 40, 40)


def svg_bars(measure: Measure, ylabel: str) -> str:
    """Bars as an SVG element, which takes its colours from the page.

    Args:
        measure: what is drawn.
        ylabel: what the bars count.
    """
    histogram, highest = measure.histogram, max(measure.histogram.counts)
    step = _step(histogram)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(f"{ylabel} by {measure.name}")}">',
        f'<text x="{LEFT}" y="14">highest bar: {highest:,} {html.escape(ylabel)}</text>',
    ]
    for i, count in enumerate(histogram.counts):
        height = (HEIGHT - TOP - BOTTOM) * count / max(1, highest)
        parts.append(
            f'<rect class="bar" x="{LEFT + i * step + 0.5:.1f}" '
            f'y="{HEIGHT - BOTTOM - height:.1f}" width="{max(1.0, step - 1):.1f}" '
            f'height="{height:.1f}"><title>{bin_name(histogram, i)}: {count:,}</title></rect>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    for i, label in edge_labels(histogram):
        x, anchor = LEFT + i * step, _anchor(i, len(histogram.counts))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{label}</text>')
    return "".join([*parts, "</svg>"])


def _step(histogram: Histogram) -> float:
    """Width of a bar with its gap; a few bars do not fill the chart."""
    return min(WIDEST, (WIDTH - LEFT - RIGHT) / len(histogram.counts))


def edge_labels(histogram: Histogram) -> list[tuple[int, str]]:
    """Some edges of bins, by their number, as text; the end of an open bin has a plus."""
    last = len(histogram.counts)
    every = -(-last // LABELS)
    shown = [i for i in range(0, last, every) if i == 0 or last - i >= every]
    labels = [(i, number(histogram.edges[i])) for i in shown]
    return [*labels, (last, number(histogram.edges[-1]) + "+" * histogram.open_ended)]


def bin_name(histogram: Histogram, place: int) -> str:
    """Which values a bin holds."""
    low, high = histogram.edges[place], histogram.edges[place + 1]
    if histogram.open_ended and place == len(histogram.counts) - 1:
        return f"{number(low)} or more"
    return f"{number(low)} to below {number(high)}"


def number(value: float) -> str:
    """A number as people write it: with commas, and no more digits than say something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _anchor(place: int, last: int) -> str:
    return {0: "start", last: "end"}.get(place, "middle")


def picture_of(measure: Measure, title: str, scale: int = 2) -> Image.Image:
    """The same bars as a picture."""
    histogram, highest = measure.histogram, max(measure.histogram.counts)
    image = Image.new("RGB", (WIDTH * scale, (HEIGHT + 18) * scale), BACKGROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11 * scale)
    draw.text((LEFT * scale, 3 * scale), title, INK, font)
    draw.text((LEFT * scale, 18 * scale), f"highest bar: {highest:,}", INK, font)
    step, base = _step(histogram) * scale, HEIGHT + 18 - BOTTOM
    for i, count in enumerate(histogram.counts):
        height = (HEIGHT - TOP - BOTTOM) * count / max(1, highest)
        x = LEFT * scale + i * step
        if count:
            draw.rectangle((x + 1, (base - height) * scale, x + step - 1, base * scale), BAR)
    draw.line((LEFT * scale, base * scale, (WIDTH - RIGHT) * scale, base * scale), INK, 1)
    for i, label in edge_labels(histogram):
        anchor = {"start": "la", "end": "ra", "middle": "ma"}[_anchor(i, len(histogram.counts))]
        place = (LEFT * scale + i * step, (base + 4) * scale)
        draw.text(place, label, INK, font, anchor=anchor)
    return image
