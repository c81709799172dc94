"""The page: one file that needs nothing else, no scripts and no network.

Whatever comes from the dataset is escaped where it is put in; should that ever fail, the page's
content security policy still lets nothing run and nothing be fetched.
"""

import string
from importlib import resources

from flashface_jax.inspection.measuring.suspicion import SUSPICIONS, Limits
from flashface_jax.inspection.measuring.verification import Verification
from flashface_jax.inspection.page.markup import attribute, counted, table, text
from flashface_jax.inspection.page.numbers import build_numbers, rates, split_numbers
from flashface_jax.inspection.page.pictures import (
    ordinary_clusters,
    suspicious_clusters,
    training_samples,
)
from flashface_jax.inspection.report import Report

PROBLEMS_SHOWN = 50
SECTIONS = {
    "numbers": "Numbers",
    "build": "The build",
    "suspicious": "Suspicious clusters",
    "ordinary": "Ordinary clusters",
    "samples": "What the model sees",
    "throughput": "Throughput",
}


def page(report: Report) -> str:
    """The whole page."""
    sections = {
        "numbers": "".join(split_numbers(statistics) for statistics in report.splits),
        "build": build_numbers(report.build),
        "suspicious": suspicious_clusters(report),
        "ordinary": ordinary_clusters(report),
        "samples": training_samples(report),
        "throughput": rates(report),
    }
    shown = {name: said for name, said in sections.items() if said}
    body = [f'<h2 id="{name}">{SECTIONS[name]}</h2>\n{said}' for name, said in shown.items()]
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(
        title=attribute(report.build.name),
        name=text(report.build.name),
        read=_read(report),
        verdict="".join(_verdict(verification) for verification in report.verifications),
        contents="".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name in shown),
        body="\n".join(body),
        method=_method(report.limits),
    )


def _read(report: Report) -> str:
    """How much of the dataset was looked at."""
    parts = []
    for split in report.splits:
        photos, people = (
            counted(split.photos, "photo"),
            counted(split.identities, "person", "people"),
        )
        if split.photos_read == split.photos:
            parts.append(f"All {photos} of {text(split.split)} ({people}) were read.")
        else:
            parts.append(
                f"Of {photos} of {text(split.split)} ({people}), {split.photos_read:,} were read: "
                f"those of {split.identities_read:,} people, drawn with seed {report.seed}."
            )
    return f"{' '.join(parts)} Dataset in <code>{text(report.build.place)}</code>."


def _verdict(verification: Verification) -> str:
    name = text(verification.split)
    if verification.whole:
        return (
            f'<p class="verdict"><strong>{name} is whole:</strong> all '
            f"{counted(verification.photos, 'photo')} decode, and their contents have the checksum "
            f"of the build, <code>{verification.expected[:16]}</code>.</p>"
        )
    problems = list(verification.problems[:PROBLEMS_SHOWN])
    more = len(verification.problems) + verification.further_problems - len(problems)
    items = "".join(f"<li>{text(problem)}</li>" for problem in problems)
    items += f"<li>and {more:,} more; statistics.json lists them</li>" if more else ""
    return (
        f'<div class="verdict wrong"><strong>{name} is damaged.</strong> '
        f"{text(checksum_words(verification))}<ul>{items}</ul></div>"
    )


def checksum_words(verification: Verification) -> str:
    """What the checksum says, in a sentence."""
    if not verification.computed:
        return "The checksum of the contents cannot be computed: a record cannot be read."
    if verification.computed == verification.expected:
        return "The contents are those that the build wrote, but not all is in order."
    return "The contents are not those that the build wrote: the checksum differs."


def _method(limits: Limits) -> str:
    rows = [[text(name.replace("_", " ")), text(words)] for name, words in SUSPICIONS.items()]
    return (
        f"<p>Tiny is under {limits.tiny_face:.0f} pixels, a quarter of a reference's side. Faces "
        f"are near-identical where at most {limits.hash_bits} of the 256 bits of their hashes "
        "differ. Blurred, tiny, cut or steep faces and missing captions or landmarks are named "
        "where they concern "
        f"{100 * limits.share:.0f} % of a cluster or more.</p>"
        f'<div class="card">{table(["suspicion", "meaning"], rows)}</div>'
    )
