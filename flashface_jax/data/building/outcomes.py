"""What may become of a photo in a build, in words."""

# Why a photo is dropped, and what is told of one that is kept.
DROPS = {
    "malformed_line": "the manifest's line describes no photo",
    "duplicate_source_id": "another line has the same source id",
    "removed": "its identity or source id is on the list of removals",
    "missing": "the file does not exist",
    "no_file": "a folder or device, or a name that the system refuses",
    "empty": "the file is empty",
    "heic": "HEIC, which is not read: convert it to JPEG",
    "unknown_format": "no JPEG, PNG or other known format",
    "damaged": "the picture is cut off or otherwise damaged",
    "too_large": "too many pixels",
    "face_box_empty": "the face box holds no pixel",
    "face_outside": "half of the face box or more lies outside the photo",
    "same_picture": "another photo of this identity is the same picture",
}
UNREADABLE = (
    "missing",
    "no_file",
    "empty",
    "heic",
    "unknown_format",
    "damaged",
    "too_large",
)  # reasons that another file in its place does away with
NOTES = {
    "transcoded": "not a baseline JPEG in colour: encoded anew",
    "turned": "turned upright, as its EXIF says",
    "reduced": "reduced to the longest side",
    "stripped": "camera data, comments or previews removed",
    "no_landmarks": "no landmarks are known: its face is cropped without turning it",
    "landmarks_unusable": "landmarks that are no finite numbers were left out",
    "no_caption": "the caption is empty",
    "face_cut": "the face box reaches out of the photo",
    "shared_picture": "another identity has the same picture: look whether both are in it",
    "name_escaped": "the file's name is no UTF-8: its source id spells the bytes",
}
