"""`Outcome`: what came of checking one scenario (or foreign case) in one tier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from polyplane_conformance.expectation import Pair, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One cell that is not as it should be.

    ``step`` counts from 1. ``judge`` is who expected it (``written``, ``oracle``); ``trail`` says how both came to their view.
    """

    step: int
    service: str
    family: int
    source: str
    destination: str
    expected: bool
    judge: str
    trail: tuple[str, ...] = ()

    @property
    def leak(self) -> bool:
        """Whether something passed that must not: the worse kind."""
        return not self.expected

    def __str__(self) -> str:
        what = "passes and must not" if self.leak else "is stopped and must pass"
        return f"step {self.step}: {self.service} over IPv{self.family} from {self.source} to {self.destination} {what} ({self.judge})"


@dataclass(slots=True)
class Outcome:
    """Number of cells compared, and those that disagree; ``notes`` are other failures, ready to print."""

    cells: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing disagrees."""
        return not self.disagreements and not self.notes

    def compare(
        self,
        *,
        step: int,
        service: Service,
        family: int,
        expected: Mapping[Pair, bool],
        found: Mapping[Pair, bool],
        judge: str,
        trails: Mapping[Pair, tuple[str, ...]] | None = None,
    ) -> None:
        """Compare all cells of one matrix; a pair missing from ``found`` counts as stopped."""
        self.cells += len(expected)
        for pair, wanted in expected.items():
            if found.get(pair, False) is not wanted:
                self.disagreements.append(
                    Disagreement(
                        step=step,
                        service=str(service),
                        family=family,
                        source=pair[0],
                        destination=pair[1],
                        expected=wanted,
                        judge=judge,
                        trail=(trails or {}).get(pair, ()),
                    )
                )

    def explain(self, *, limit: int = 10) -> str:
        """Return notes and disagreements for people, each with its trail; of either, more than ``limit`` are counted only."""
        lines = self.notes[:limit]
        if (more := len(self.notes) - limit) > 0:
            lines.append(f"… and {more} more of this kind")
        for disagreement in self.disagreements[:limit]:
            lines += [str(disagreement), *(f"    {line}" for line in disagreement.trail)]
        if (more := len(self.disagreements) - limit) > 0:
            lines.append(f"… and {more} more")
        return "\n".join(lines)


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """Add outcomes up."""
    result = Outcome()
    for outcome in outcomes:
        result.cells += outcome.cells
        result.disagreements += outcome.disagreements
        result.notes += outcome.notes
    return result
