"""`evidence`: what a person needs who has to explain one wrong cell: how oracle and program decided, and the native rules involved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from polyplane.ir.program import Program
from polyplane.plugins import Dataplane
from polyplane.reconcile.diff import diff
from polyplane_conformance.cast import NODE
from polyplane_conformance.control import decide
from polyplane_conformance.expectation import Pair, Service
from polyplane_conformance.model import ask, both_trails
from polyplane_conformance.oracle import Oracle
from polyplane_conformance.world import World

#: Native statements shown at most.
MOST: Final = 12
#: Names made of a digest, by which native statements refer to each other.
_DIGEST: Final = re.compile(r"\b\w*?[0-9a-f]{8,}\w*\b")


def evidence(world: World, dataplane: Dataplane, program: Program, cell: tuple[Pair, Service, int]) -> tuple[str, ...]:
    """Return the lines, each with its witness in front: ``oracle``, ``evaluate``, ``native``."""
    pair, service, family = cell
    answer = ask(Oracle(world.objects.values()), world, pair, service, family)
    said = decide(world, {NODE: program}, pair, service, family)
    addresses = [world.addresses(actor)[family] for actor in pair]
    rules = [decision.rule_id for station in said for decision in (station.egress, station.ingress) if decision and decision.rule_id]
    text = dataplane.render(diff(Program(), program))
    return (
        *both_trails(answer, said),
        *(f"native: {line}" for line in involved(text, addresses, rules)),
    )


def involved(text: str, addresses: list[str], rules: Iterable[int] = ()) -> Iterator[str]:
    """Yield the native statements with a deciding rule's id, those that name one of the addresses, and those that these refer to.

    Not more than `MOST`, half of them with ids.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ids = [f"{rule:08x}" for rule in rules]
    deciding = [line for line in lines if any(number in line for number in ids)]
    whole = re.compile(rf"(?<![\w.:])(?:{'|'.join(map(re.escape, addresses))})(?![\w.:]*\w)")
    first = [line for line in lines if whole.search(line) and line not in deciding]
    names = {name for line in first for name in _DIGEST.findall(line)}
    second = [line for line in lines if line not in deciding and line not in first and names.intersection(_DIGEST.findall(line))]
    shown = [*deciding[: MOST // 2], *first, *second][:MOST]
    yield from shown
    if (more := len(deciding) + len(first) + len(second) - len(shown)) > 0:
        yield f"… and {more} more"
