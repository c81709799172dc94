"""Text of a dataset in HTML and Markdown: whatever it holds, it stays text."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 300
UNITS = ("bytes", "kB", "MB", "GB", "TB")


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


def size(count: int) -> str:
    """Bytes as people write them."""
    if count < 1000:
        return counted(count, "byte")
    power = min(len(UNITS) - 1, (len(str(count)) - 1) // 3)
    value = count / 1000**power
    return f"{value:.0f} {UNITS[power]}" if value >= 10 else f"{value:.1f} {UNITS[power]}"


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: 1 photo, 2,000 photos."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
