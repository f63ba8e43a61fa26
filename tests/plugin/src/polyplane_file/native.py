"""A dataplane that is a file: it holds the program as canonical text, and no packet passes through it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from polyplane.ir.features import Feature
from polyplane.ir.program import EMPTY, Program
from polyplane.ir.text import print_program

#: What the dataplane cannot do, with the reason; the core denies what would need it before it comes here.
MISSING = {Feature.COUNTERS: "no packet passes through a file"}


def statements(program: Program) -> list[str]:
    """Return the lines of the program's text; none for an empty program, so that a teardown leaves nothing."""
    timeless = replace(program, revision=0)
    return [] if timeless.same_content(EMPTY) else print_program(timeless).splitlines()


def exchange(wanted: list[str] | None, place: str) -> list[str]:
    """Read the lines; then write the wanted ones beside them and rename, so that the file holds the old or the new at every moment."""
    path = Path(place)
    found = path.read_text().splitlines() if path.exists() else []
    if wanted:
        beside = path.with_suffix(".new")
        beside.write_text("\n".join(wanted))
        beside.replace(path)
    elif wanted is not None:
        path.unlink(missing_ok=True)
    return found
