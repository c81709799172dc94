"""Text of a dataset in HTML and Markdown: whatever it holds, it stays text."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 300


def plain(value: str, most: int = LONGEST) -> str:
    """Text in one line without control characters, cut where it is long."""
    line = " ".join(value.split())
    line = "".join(c for c in line if unicodedata.category(c) != "Cc")
    return line if len(line) <= most else f"{line[:most]}…"


def text(value: str, most: int = LONGEST) -> str:
    """Text as HTML that its direction of writing does not carry beyond itself."""
    return f"<bdi>{html.escape(plain(value, most))}</bdi>"


def attribute(value: str) -> str:
    """Text for an attribute in double quotes."""
    return html.escape(plain(value))


def markdown(value: str, most: int = LONGEST) -> str:
    """Text as Markdown: no character of it formats, links or embeds anything."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&@:$-])", r"\\\1", plain(value, most))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of HTML cells.

    Args:
        head: cells of the first row.
        rows: cells of the others.
        numbers: columns that are aligned as numbers.
    """
    kinds = [' class="n"' if i in numbers else "" for i in range(len(head))]
    lines = ["<tr>" + _cells("th", head, kinds) + "</tr>"]
    lines += ["<tr>" + _cells("td", row, kinds) + "</tr>" for row in rows]
    return '<div class="scroll"><table>' + "".join(lines) + "</table></div>"


def _cells(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> str:
    pairs = zip(cells, kinds, strict=True)
    return "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in pairs)


def size(number: float) -> str:
    """Bytes as people write them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return (
                f"{number:.0f} {unit}"
                if number >= 10 or unit == "bytes"
                else f"{number:.1f} {unit}"
            )
        number /= 1000
    return f"{number:.1f} TB"


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: 1 photo, 2,000 photos."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
