"""`Reachability`: who reaches whom, measured or expected; comparison, terminal rendering, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polyplane_conformance.probe.model import Outcome, Result, Traffic

#: Sign and style of an outcome.
SIGNS: Final = {
    Outcome.ALLOWED: ("✓", "green"),
    Outcome.DENIED: ("✗", "red"),
    Outcome.REJECTED: ("R", "red"),
    Outcome.BROKEN: ("!", "bold magenta"),
}


class Cell(NamedTuple):
    """One pair and one kind of traffic."""

    source: str
    destination: str
    traffic: Traffic

    def __str__(self) -> str:
        return f"{self.source} → {self.destination} {self.traffic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A cell that is not what was expected."""

    cell: Cell
    expected: bool
    result: Result

    def __str__(self) -> str:
        said = f" ({self.result.detail})" if self.result.detail else ""
        return f"{self.cell}: expected {'allowed' if self.expected else 'denied'}, was {self.result.outcome}{said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reachability:
    """A matrix: rows are sources, columns destinations, one layer for each kind of traffic.

    A cell is absent where the question makes no sense: no common IP version, a port that is not served.
    """

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    traffic: tuple[Traffic, ...]
    cells: Mapping[Cell, Result]

    @classmethod
    def expected(cls, cells: Mapping[Cell, bool]) -> Reachability:
        """Make a matrix of what should be, for instance to render it."""
        outcomes = {True: Outcome.ALLOWED, False: Outcome.DENIED}
        return cls(
            sources=tuple(dict.fromkeys(cell.source for cell in cells)),
            destinations=tuple(dict.fromkeys(cell.destination for cell in cells)),
            traffic=tuple(dict.fromkeys(cell.traffic for cell in cells)),
            cells={cell: Result(outcome=outcomes[allowed], packets=0) for cell, allowed in cells.items()},
        )

    @property
    def allowed(self) -> frozenset[Cell]:
        """The cells whose traffic passed."""
        return frozenset(cell for cell, result in self.cells.items() if result.allowed)

    def select(self, outcome: Outcome) -> dict[Cell, Result]:
        """Return the cells with an outcome."""
        return {cell: result for cell, result in self.cells.items() if result.outcome is outcome}

    def differences(self, expected: Mapping[Cell, bool]) -> tuple[Difference, ...]:
        """Compare with what should be. A broken cell always differs: it is neither; so does a cell that was never probed.

        A rejected cell counts as denied. Probed cells that nothing is expected of are not compared.
        """
        found = []
        for cell, allowed in expected.items():
            result = self.cells.get(cell, Result(outcome=Outcome.BROKEN, detail="not probed", packets=0))
            if result.outcome is Outcome.BROKEN or result.allowed is not allowed:
                found.append(Difference(cell=cell, expected=allowed, result=result))
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return the matrix as plain data for reports."""
        return {
            "sources": list(self.sources),
            "destinations": list(self.destinations),
            "cells": [
                {
                    "source": cell.source,
                    "destination": cell.destination,
                    "traffic": cell.traffic.name,
                    "family": cell.traffic.family,
                    "outcome": result.outcome.value,
                    "answered_by": result.answered_by,
                    "detail": result.detail,
                    "milliseconds": round(result.seconds * 1000, 2),
                }
                for cell, result in self.cells.items()
            ],
        }

    def __str__(self) -> str:
        counts = {outcome: len(self.select(outcome)) for outcome in Outcome}
        return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "empty"

    def __rich__(self) -> RenderableType:
        return render(self)


def render(after: Reachability, *, before: Reachability | None = None, expected: Mapping[Cell, bool] | None = None) -> RenderableType:
    """Return tables for the terminal, one for each kind of traffic; layers that are alike share one.

    Rows and columns without a cell are left out of a layer.
    With ``before``, a changed cell shows both signs. With ``expected``, a cell that differs is shown in reverse.
    """
    wrong = {difference.cell for difference in after.differences(expected)} if expected is not None else set()
    layers: dict[tuple[object, ...], tuple[list[Traffic], _Layer]] = {}
    for traffic in after.traffic:
        present = [cell for cell in after.cells if cell.traffic == traffic]
        sources, destinations = {cell.source for cell in present}, {cell.destination for cell in present}
        columns = [name for name in after.destinations if name in destinations]
        layer = _Layer(
            columns=columns,
            rows={
                source: [_text(Cell(source, name, traffic), after, before, wrong) for name in columns]
                for source in after.sources
                if source in sources
            },
        )
        layers.setdefault(layer.key, ([], layer))[0].append(traffic)
    return Group(*(part for kinds, layer in layers.values() for part in (_table(kinds, layer), "")))


class _Layer(NamedTuple):
    """What one kind of traffic looks like: destinations, and for each source its cells."""

    columns: list[str]
    rows: dict[str, list[Text]]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for layers that look alike."""
        cells = ((source, *((text.plain, str(text.style)) for text in row)) for source, row in self.rows.items())
        return tuple(self.columns), *cells


def _text(cell: Cell, after: Reachability, before: Reachability | None, wrong: Iterable[Cell]) -> Text:
    result = after.cells.get(cell)
    if result is None:
        return Text("·", style="dim")
    sign, style = SIGNS[result.outcome]
    earlier = before.cells.get(cell) if before is not None else None
    if earlier is not None and earlier.outcome is not result.outcome:
        sign, style = f"{SIGNS[earlier.outcome][0]}→{sign}", f"bold {style}"
    return Text(sign, style=f"reverse {style}" if cell in wrong else style)


def _table(kinds: list[Traffic], layer: _Layer) -> Table:
    table = Table(title=", ".join(_titles(kinds)), title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    table.add_column("from \\ to", style="bold", no_wrap=True)
    for destination in layer.columns:
        table.add_column(destination, justify="center", no_wrap=True)
    for source, row in layer.rows.items():
        table.add_row(source, *row)
    return table


def _titles(kinds: list[Traffic]) -> list[str]:
    families: dict[str, list[int]] = {}
    for kind in kinds:
        families.setdefault(kind.name, []).append(kind.family)
    return [f"{name} IPv{'+IPv'.join(str(family) for family in sorted(of))}" for name, of in families.items()]
