"""What can become of a photo: the named outcomes, and what each means."""

from dataclasses import dataclass
from typing import Literal

Step = Literal["collect", "measure", "select", "caption"]
STEPS: tuple[Step, ...] = ("collect", "measure", "select", "caption")

# In the order in which they are asked: the first that holds is a photo's outcome.
DROPPED: dict[str, tuple[Step, str]] = {
    "bad_line": ("collect", "the line of the manifest describes no photo"),
    "name_not_utf8": ("collect", "its name or identity is no UTF-8 text"),
    "hidden": ("collect", "a file or folder whose name begins with a dot"),
    "unreadable_folder": ("collect", "a folder that cannot be opened"),
    "linked_again": ("collect", "a link to a folder that was entered before"),
    "outside_folders": ("collect", "a file outside the folders of people"),
    "duplicate_source_id": ("collect", "an earlier line has the same source_id"),
    "unreadable": ("measure", "no picture, or a damaged one"),
    "no_face": ("measure", "no face that is sure and 32 pixels wide"),
    "near_duplicate": ("select", "a better copy of the same photo is there"),
    "no_dense_cluster": ("select", "the identity's faces are not one person's"),
    "ambiguous_identity": ("select", "the identity's photos show two people about as often"),
    "outside_cluster": ("select", "its face lies outside the person's cluster"),
    "dissimilar": ("select", "its face is not similar enough to the person's centre"),
    "small_face": ("select", "the person's face is too small"),
    "several_faces": ("select", "another face is over half as large"),
    "blurred": ("select", "the person's face is not sharp"),
    "too_few_photos": ("select", "the identity has too few photos left"),
}
NOTES: dict[str, tuple[Step, str]] = {
    "empty_caption": ("caption", "kept, but the model said nothing of it"),
}
KEPT = "kept"


@dataclass(frozen=True)
class Outcome:
    """What became of a photo; a line of outcomes.jsonl.

    Attributes:
        photo: its file, or the line of the manifest that names none.
        identity: whose photo it was said to be; "" if nobody's.
        outcome: one of DROPPED or NOTES.
        detail: a sentence, or "".
    """

    photo: str
    identity: str
    outcome: str
    detail: str = ""
