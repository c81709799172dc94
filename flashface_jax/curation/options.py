"""The options of the curation command."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from flashface_jax.common.command_line import Parser
from flashface_jax.curation.rules import ClusterRules, QualityRules, Rules

DESCRIPTION = r"""Turn folders of photos of people into a clean, captioned manifest.

    flashface curate --photos photos --models buffalo_l --out curated \
        --captions Qwen/Qwen2.5-VL-7B-Instruct

photos holds one folder a person, named after them, with photos at any depth; what a search for the
name found will do. For each name the person who is on most of the photos is found. Other people's
photos, copies, and small, blurred or crowded faces are left out; the rest is described in words.
Without --captions, a text file beside a photo (ann/1.txt beside ann/1.jpg) is its caption.

Writes manifest.jsonl (the photos that are kept), outcomes.jsonl (the others, and why) and
report.json to --out. A command that was stopped goes on when it is given again, and does again only
what other options or other files change; curated/work, which it keeps for that, may be removed.
"""

EPILOG = """lists of photos:
  --photos also takes a .jsonl file, one photo a line, paths relative to it; photo and identity are
  needed:
    {"photo": "a/1.jpg", "identity": "Ann", "source_id": "flickr/1", "provenance": "CC0",
    "caption": ""}

Apache Beam:
  the work is done in this process unless Beam's own options say otherwise. In 8 processes:
    --direct_num_workers=8 --direct_running_mode=multi_processing
  on a cluster, whose machines see photos, models and --out at the same paths:
    --runner=FlinkRunner --flink_master=HOST:8081
  every option that is not listed here goes to Beam.
"""


def make_parser(prog: str = "flashface curate") -> Parser:
    """Describe the command line; what is not known here is for Beam."""
    parser = Parser(prog=prog, description=DESCRIPTION, epilog=EPILOG)
    add = parser.add_argument
    add("--photos", type=Path, required=True, metavar="DIR", help="one folder a person, or a list")
    add("--out", type=Path, required=True, metavar="DIR", help="where to write")
    faces = parser.add_argument_group("faces")
    faces.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="an insightface model pack with a detector (SCRFD) and a recognition model (ArcFace); "
        "without it buffalo_l is downloaded, about 300 MB",
    )
    faces.add_argument(
        "--detector",
        choices=("insightface", "cascade"),
        default="insightface",
        help="cascade: OpenCV's, less accurate; --models then needs no detector, but still a "
        "recognition model (default: %(default)s)",
    )
    _add_rules(parser)
    captions = parser.add_argument_group("captions")
    captions.add_argument(
        "--captions",
        metavar="MODEL",
        help="a vision-language model, by its Hugging Face id or directory (default: captions of "
        "the list, or of text files beside the photos)",
    )
    captions.add_argument(
        "--caption-tokens", type=_number(1), default=256, metavar="N", help="longest (256)"
    )
    captions.add_argument(
        "--caption-batch", type=_number(1), default=8, metavar="N", help="photos at a time (8)"
    )
    return parser


def rules_of(options: argparse.Namespace) -> Rules:
    """What is kept, as the options say it."""
    return Rules(
        ClusterRules(min_similarity=options.min_similarity),
        QualityRules(min_face=options.min_face, min_sharpness=options.min_sharpness),
        min_photos=options.min_photos,
    )


def _add_rules(parser: Parser) -> None:
    group = parser.add_argument_group("what is kept")
    clusters, quality = ClusterRules(), QualityRules()
    group.add_argument(
        "--min-similarity",
        type=similarity,
        default=clusters.min_similarity,
        metavar="X",
        help="least cosine of a face to the centre of the person's faces (0.6, as in the paper)",
    )
    group.add_argument(
        "--min-face",
        type=_number(1),
        default=quality.min_face,
        metavar="N",
        help=f"least width and height of the face in pixels ({quality.min_face})",
    )
    group.add_argument(
        "--min-sharpness",
        type=sharpness,
        default=quality.min_sharpness,
        metavar="X",
        help=f"least variance of the face's Laplacian at 112x112 ({quality.min_sharpness:.0f}); "
        "0 keeps blurred faces",
    )
    group.add_argument(
        "--min-photos",
        type=_number(2),
        default=Rules().min_photos,
        metavar="N",
        help="least number of photos of a person (2: a target and a reference)",
    )


def _number(least: int) -> Callable[[str], int]:
    """A whole number from `least` on."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


def similarity(text: str) -> float:
    """A cosine; argparse calls a wrong value by this function's name."""
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return float(text)


def sharpness(text: str) -> float:
    """A variance, likewise."""
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 on")
    return float(text)
