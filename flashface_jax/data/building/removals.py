"""Lists of removals: whose photos, and which, must not be in a dataset.

A text file; a line names a person or a photo, `#` begins a comment:

    identity: Ann Lee
    source_id: flickr/123
"""

import unicodedata
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from flashface_jax.common.errors import sentence, shortened

KINDS = ("identity", "source_id")
MOST_LINES = 20


@dataclass(frozen=True)
class Removals:
    """What a list of removals names.

    Attributes:
        identities: people of whom no photo may stay, as `plain` spells them.
        source_ids: photos that may not stay, likewise.
    """

    identities: Set[str] = field(default_factory=frozenset)
    source_ids: Set[str] = field(default_factory=frozenset)

    def name(self, identity: str, source_id: str) -> bool:
        """Whether a photo is on the list."""
        return plain(identity) in self.identities or plain(source_id) in self.source_ids

    def unmatched(self, removed: Iterable[tuple[str, str]]) -> list[str]:
        """Entries of the list that name none of the removed, given by identity and source id."""
        pairs = [(plain(identity), plain(source_id)) for identity, source_id in removed]
        people = self.identities - {identity for identity, _ in pairs}
        photos = self.source_ids - {source_id for _, source_id in pairs}
        entries = [f"identity: {name}" for name in sorted(people)]
        return entries + [f"source_id: {name}" for name in sorted(photos)]


def in_vain(entries: Sequence[str]) -> list[str]:
    """Lines that say which entries of a list name nothing, if there are such."""
    if not entries:
        return []
    return [f"{len(entries)} entries of the list name nothing here", *first_lines(entries)]


def first_lines(lines: Sequence[str]) -> list[str]:
    """Some lines, set in, and how many more there are."""
    shown = [f"  {one}" for one in lines[:MOST_LINES]]
    more = len(lines) - MOST_LINES
    return [*shown, f"  and {more} more"] if more > 0 else shown


def plain(name: str) -> str:
    """A name however its accents are put together and its words set apart: lists are typed."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def read_removals(path: Path) -> Removals:
    """Read a list of removals.

    Raises:
        ValueError: naming the file and the line that cannot be understood.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The list of removals {path} cannot be read: {sentence(error)}"
        ) from error
    named: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for number, line in enumerate(lines, start=1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        kind, colon, value = said.partition(":")
        if kind.strip() not in KINDS or not colon or not value.strip():
            raise ValueError(
                f"{path}, line {number}: {shortened(said)} removes nothing: write "
                "'identity: NAME' or 'source_id: ID'."
            )
        named[kind.strip()].add(plain(value))
    return Removals(frozenset(named["identity"]), frozenset(named["source_id"]))
