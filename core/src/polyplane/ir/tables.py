"""`build_table`: one stack of tiers, asked about one class of addresses, becomes a decision table.

Tiers, pass, deny, negated peers and isolation vanish: what is left is protocol × destination port range → `Outcome`. What
these two dimensions cannot say (source ports, ICMP types, logging) stays as `Branch` es inside the outcome.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from polyplane.ir.evaluate import Verdict
from polyplane.ir.program import ANY, PROTOCOLS_WITH_PORTS, Action, Match, Policy, PolicyId, PortRange, SetId, Stack

_LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happens to a packet: the first branch that applies and ends decides, otherwise ``verdict``.

    ``rule_id`` 0: no rule decided, nothing isolates.
    """

    verdict: Verdict
    rule_id: int
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """Where ``condition`` holds: log under the rule id ``log`` unless 0, then go to ``then``, or on to the next branch if None.

    The condition is about source ports and ICMP types only, together with the protocol they belong to.
    """

    condition: Match
    log: int
    then: Outcome | None


@dataclass(frozen=True, slots=True)
class Row:
    """Destination ports ``first..last`` of one protocol; 0..65535 for a protocol without ports."""

    protocol: int
    first: int
    last: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Table:
    """Disjoint rows sorted by protocol and port, and what happens to everything else."""

    rows: tuple[Row, ...]
    otherwise: Outcome

    def find(self, protocol: int, port: int) -> Outcome:
        """Return what happens to packets of this protocol and destination port (0 for protocols without)."""
        for row in self.rows:
            if row.protocol == protocol and row.first <= port <= row.last:
                return row.outcome
        return self.otherwise


@dataclass(frozen=True, slots=True)
class _Entry:
    """One rule of the flattened stack, or the end of a tier. ``next_tier`` is the position where the next tier begins."""

    action: Action
    match: Match
    rule_id: int
    next_tier: int


class FlatStack:
    """A stack of tiers as one list of entries, indexed by the address sets they ask for."""

    __slots__ = ("_always", "_by_set", "_entries", "sets")

    def __init__(self, stack: Stack, policies: Mapping[PolicyId, Policy]) -> None:
        entries: list[_Entry] = []
        for tier in stack:
            rules = [rule for policy_id in tier.policies for rule in policies[policy_id].rules]
            next_tier = len(entries) + len(rules) + (tier.isolation is not None)
            entries += [_Entry(rule.action, rule.match, rule.id, next_tier) for rule in rules]
            if tier.isolation is not None:
                entries.append(_Entry(Action.DENY, ANY, tier.isolation.id, next_tier))
        entries.append(_Entry(Action.ALLOW, ANY, 0, len(entries) + 1))
        self._entries: Final = entries
        self._always: Final[list[int]] = []
        self._by_set: Final[dict[SetId, list[int]]] = {}
        #: All sets that any rule names.
        self.sets: Final = frozenset(set_id for entry in entries for term in entry.match.peer for set_id in term.sets)
        for position, entry in enumerate(entries):
            required = next((term for term in entry.match.peer if not term.negated), None)
            if required is None:
                self._always.append(position)
            else:
                for set_id in required.sets:
                    self._by_set.setdefault(set_id, []).append(position)

    def table(self, family: int, inside: frozenset[SetId]) -> Table:
        """Return the decision table for addresses of ``family`` that are in exactly the sets ``inside``, of those we know."""
        positions = set(self._always).union(*(self._by_set.get(set_id, ()) for set_id in inside))
        return build_table(
            {
                position: entry
                for position in sorted(positions)
                if (entry := self._entries[position]).match.family in (None, family)
                and all(term.negated is inside.isdisjoint(term.sets) for term in entry.match.peer)
            }
        )


def build_table(entries: Mapping[int, _Entry]) -> Table:
    """Turn entries whose peer and family hold, keyed by position and sorted, into rows.

    A sweep over the port numbers of each protocol that any entry names: O(n log n) in the number of entries.
    """
    protocols = {number for entry in entries.values() for number in (entry.match.protocol, entry.match.not_protocol) if number is not None}
    otherwise = _outcome(entries, [position for position, entry in entries.items() if entry.match.protocol is None])
    rows: list[Row] = []
    for protocol in sorted(protocols):
        for first, last, active in _segments(protocol, entries):
            outcome = _outcome(entries, active)
            if outcome == otherwise:
                continue
            if rows and rows[-1].protocol == protocol and rows[-1].last == first - 1 and rows[-1].outcome == outcome:
                rows[-1] = replace(rows[-1], last=last)
            else:
                rows.append(Row(protocol, first, last, outcome))
    return Table(tuple(rows), otherwise)


def _segments(protocol: int, entries: Mapping[int, _Entry]) -> Iterable[tuple[int, int, list[int]]]:
    """Yield ``first, last, positions of the entries that match there`` over all ports; the list changes between two steps."""
    begins: dict[int, list[int]] = {0: []}
    ends: dict[int, list[int]] = {}
    for position, entry in entries.items():
        match = entry.match
        if match.protocol not in (None, protocol) or match.not_protocol == protocol:
            continue
        for first, last in _port_ranges(match, protocol):
            begins.setdefault(first, []).append(position)
            ends.setdefault(last + 1, []).append(position)
    active: list[int] = []
    points = sorted(begins.keys() | ends.keys() | {_LAST_PORT + 1})
    for first, following in pairwise(points):
        for position in ends.get(first, ()):
            del active[bisect_left(active, position)]
        for position in begins.get(first, ()):
            insort(active, position)
        yield first, following - 1, active


def _port_ranges(match: Match, protocol: int) -> tuple[tuple[int, int], ...]:
    """Return the disjoint destination port ranges that the match leaves open."""
    if protocol not in PROTOCOLS_WITH_PORTS:
        return ((0, _LAST_PORT),)
    wanted = merge_ranges(match.ports) if match.ports else [(0, _LAST_PORT)]
    return tuple(subtract_ranges(wanted, merge_ranges(match.not_ports)))


def merge_ranges(ranges: Iterable[PortRange]) -> list[tuple[int, int]]:
    """Return the same ports as sorted ranges that neither overlap nor touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def subtract_ranges(wanted: Iterable[tuple[int, int]], holes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what the holes leave of the wanted ranges."""
    left = list(wanted)
    for hole_first, hole_last in holes:
        left = [
            piece
            for first, last in left
            for piece in ((first, min(last, hole_first - 1)), (max(first, hole_last + 1), last))
            if piece[0] <= piece[1]
        ]
    return left


def _outcome(entries: Mapping[int, _Entry], active: Sequence[int]) -> Outcome:
    """Walk the active entries in order up to the first that decides whatever the rest of the packet says."""
    branches: list[Branch] = []
    resume = 0
    for index, position in enumerate(active):
        entry = entries[position]
        if position < resume:
            continue
        condition = _condition(entry.match)
        if entry.action is Action.LOG:
            branches.append(Branch(condition, entry.rule_id, None))
        elif condition is ANY:
            if entry.action is Action.PASS:
                resume = entry.next_tier
                continue
            return Outcome(_verdict(entry), entry.rule_id, tuple(branches))
        elif entry.action is Action.PASS:
            beyond = [later for later in active[index + 1 :] if later >= entry.next_tier]
            branches.append(Branch(condition, 0, _outcome(entries, beyond)))
        else:
            branches.append(Branch(condition, 0, Outcome(_verdict(entry), entry.rule_id)))
    raise AssertionError("the last entry of a flat stack always decides")


def _verdict(entry: _Entry) -> Verdict:
    return Verdict.ALLOW if entry.action is Action.ALLOW else Verdict.DENY


def _condition(match: Match) -> Match:
    """Return the part of the match that no table can hold; `ANY` itself when there is none."""
    if not (match.source_ports or match.not_source_ports or match.icmp or match.not_icmp):
        return ANY
    return Match(
        protocol=match.protocol,
        source_ports=match.source_ports,
        not_source_ports=match.not_source_ports,
        icmp=match.icmp,
        not_icmp=match.not_icmp,
    )
