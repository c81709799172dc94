"""The count of what became of all photos, which must add up, as JSON and as a table."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flashface_jax.curation.outcomes import DROPPED, KEPT, NOTES, STEPS, Outcome


@dataclass
class Report:
    """What became of photos and identities.

    Attributes:
        photos_in: photos, and files that turned out to be none, as they were collected.
        kept: photos in the manifest.
        outcomes: number of photos by the name of their outcome; notes too.
        identities: number of identities by outcome.
        dropped_identities: those of which nothing is kept: name, outcome, photos of each cluster.
    """

    photos_in: int = 0
    kept: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    identities: Counter[str] = field(default_factory=Counter)
    dropped_identities: list[dict[str, Any]] = field(default_factory=list)

    def add_outcome(self, outcome: Outcome) -> None:
        """Count a photo that is dropped, or a note on one that is kept."""
        self.outcomes[outcome.outcome] += 1

    def add_identity(self, identity: str, outcome: str, cluster_sizes: tuple[int, ...]) -> None:
        """Count an identity."""
        self.identities[outcome] += 1
        if outcome != KEPT:
            self.dropped_identities.append(
                {"identity": identity, "outcome": outcome, "cluster_sizes": list(cluster_sizes)}
            )

    def check(self) -> None:
        """Raise RuntimeError unless every photo was either kept or dropped."""
        dropped = sum(self.outcomes[name] for name in DROPPED)
        unknown = set(self.outcomes) - set(DROPPED) - set(NOTES)
        if self.photos_in != self.kept + dropped or unknown:
            raise RuntimeError(
                f"{self.photos_in} photos came in, but {self.kept} were kept and {dropped} dropped"
                f" (unknown outcomes: {sorted(unknown)}): please report this bug."
            )

    def steps(self) -> dict[str, dict[str, int]]:
        """How many photos entered and left each step."""
        passed = self.photos_in
        steps: dict[str, dict[str, int]] = {}
        for step in STEPS:
            lost = sum(self.outcomes[name] for name, (at, _) in DROPPED.items() if at == step)
            steps[step] = {"in": passed, "out": passed - lost}
            passed -= lost
        return steps

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        dropped = {name: self.outcomes[name] for name in DROPPED if self.outcomes[name]}
        notes = {name: self.outcomes[name] for name in NOTES if self.outcomes[name]}
        return {
            "photos": {"in": self.photos_in, "kept": self.kept, "dropped": dropped, "notes": notes},
            "steps": self.steps(),
            "identities": {
                "in": sum(self.identities.values()),
                **dict(sorted(self.identities.items())),
            },
            "dropped_identities": self.dropped_identities,
        }

    def table(self) -> str:
        """As lines to read."""
        lines = [f"{self.photos_in:>9}  photos in"]
        for name, (step, meaning) in {**DROPPED, **NOTES}.items():
            if self.outcomes[name]:
                sign = "-" if name in DROPPED else " "
                lines.append(f"{sign}{self.outcomes[name]:>8}  {step:8} {name}: {meaning}")
        lines.append(f"{self.kept:>9}  photos kept")
        lines.append(f"{sum(self.identities.values()):>9}  identities in")
        for name, number in sorted(self.identities.items()):
            lines.append(f"{number:>9}  identities: {name}")
        return "\n".join(lines)
