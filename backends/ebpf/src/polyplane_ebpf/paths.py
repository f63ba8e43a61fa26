"""Decisions that protocol and destination port do not settle.

All conditions of an `Outcome` are about one 16-bit number: the source port, or ICMP type and code together. So however many
branches it has, it is a function of that number, constant on a few ranges: one more lookup in a trie, and no loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from polyplane.backend_kit.ranges import icmp_numbers
from polyplane.ir.evaluate import Verdict, in_ranges
from polyplane.ir.program import Match, PortRange
from polyplane.ir.tables import Outcome

_LAST = 65535


@dataclass(frozen=True, slots=True)
class End:
    """What a number leads to, and what is logged on the way."""

    verdict: Verdict
    rule_id: int
    logs: tuple[int, ...]


def flatten(outcome: Outcome) -> Iterator[tuple[int, int, End]]:
    """Yield ``first, last, end`` over all numbers, neighbours differing."""
    points = sorted({0, _LAST + 1} | {point for ports in _ranges(outcome) for point in (ports.first, ports.last + 1)})
    begin, held = 0, follow(outcome, 0)
    for first, _ in pairwise(points):
        end = follow(outcome, first)
        if end != held:
            yield begin, first - 1, held
            begin, held = first, end
    yield begin, _LAST, held


def follow(outcome: Outcome, number: int) -> End:
    """Return where a number leads."""
    logs: list[int] = []
    while True:
        for branch in outcome.branches:
            if not _holds(branch.condition, number):
                continue
            if branch.log:
                logs.append(branch.log)
            if branch.then is not None:
                outcome = branch.then
                break
        else:
            return End(outcome.verdict, outcome.rule_id, tuple(logs))


def _holds(condition: Match, number: int) -> bool:
    return (
        (not condition.source_ports or in_ranges(number, condition.source_ports))
        and not in_ranges(number, condition.not_source_ports)
        and (not condition.icmp or in_ranges(number, icmp_numbers(condition.icmp)))
        and not in_ranges(number, icmp_numbers(condition.not_icmp))
    )


def _ranges(outcome: Outcome) -> Iterator[PortRange]:
    for branch in outcome.branches:
        condition = branch.condition
        yield from condition.source_ports
        yield from condition.not_source_ports
        yield from icmp_numbers(condition.icmp)
        yield from icmp_numbers(condition.not_icmp)
        if branch.then is not None:
            yield from _ranges(branch.then)
