"""The files of a checkpoint, noted once it is whole: damage is seen before anything is read.

A restoration that fails half way leaves its library's threads behind, and processes that read
different parts would disagree.
"""

import json
from pathlib import Path

from flashface_jax.common.files import atomic_file

SIZES = "sizes.json"


def note_sizes(checkpoint: Path) -> None:
    """Write down how long each file of a whole checkpoint is, unless that was done."""
    note = checkpoint / SIZES
    if note.exists():
        return
    try:
        sizes = _sizes(checkpoint)
        with atomic_file(note) as draft:
            draft.write_text(json.dumps(sizes))
    except FileNotFoundError:
        return  # it was among those that are not kept


def damage(checkpoint: Path) -> str | None:
    """Say which file is not what it was; None if all are, or nobody noted what they were."""
    note = checkpoint / SIZES
    if not note.exists():
        return None
    try:
        noted: dict[str, int] = json.loads(note.read_text())
    except ValueError:
        return f"{SIZES} is damaged"
    found = _sizes(checkpoint)
    for name, size in noted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != size:
            return f"{name} has {found[name]} bytes in place of {size}"
    return None


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != SIZES)
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
