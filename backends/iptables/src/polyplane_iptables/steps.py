"""`parts_of`: a stack of tiers as few lists of steps, each of which becomes a chain.

A rule that passes leads to where the next tier begins, which is a chain of its own: iptables cannot skip rules. nf_tables follows
only so many nested chains, so that tiers beyond `MOST_PARTS` are multiplied out: instead of "whoever fits A goes on to tier two"
a list says "whoever fits A and the first rule of tier two …", and so on for each of its rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from polyplane.backend_kit.labels import isolation_label, origin_label
from polyplane.errors import PolyplaneError
from polyplane.ir.program import ANY, Action, IcmpType, Match, Policy, PolicyId, PortRange, Stack, Tier, TierEnd

#: Chains of one stack that lead to each other; the rest of the way takes eleven of the 15 that nf_tables follows.
MOST_PARTS: Final = 4
#: Steps of one list that came about by multiplying.
_MOST_STEPS: Final = 4096


class StackRefused(PolyplaneError):
    """A stack cannot be said in rules; the text says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """A rule, or what a tier does at its end: then everything matches. ``label`` says for people where it comes from."""

    match: Match
    action: Action
    rule_id: int
    label: str

    @property
    def ends(self) -> bool:
        """Whether nothing behind it is ever asked."""
        return self.match == ANY and self.action is not Action.LOG


#: Steps in order. Whoever passes, and whoever fits none, goes on to the next part; behind the last: allowed.
Part = tuple[Step, ...]


def parts_of(stack: Stack, policies: Mapping[PolicyId, Policy]) -> tuple[Part, ...]:
    """Return a stack's parts, not more than `MOST_PARTS`.

    :raises StackRefused: there are more, and multiplied out they are too many rules
    """
    parts: list[Part] = []
    for tier in reversed(stack):
        steps = tuple(_steps(tier, policies))
        if parts and any(step.action is Action.PASS for step in steps):
            parts.insert(0, steps)
        elif parts and not (steps and steps[-1].ends):
            parts[0] = steps + parts[0]
        else:
            parts = [steps]
    return tuple(_fewer([part for part in parts if part]))


def _steps(tier: Tier, policies: Mapping[PolicyId, Policy]) -> Iterator[Step]:
    for policy_id in tier.policies:
        for rule in policies[policy_id].rules:
            yield Step(rule.match, rule.action, rule.id, origin_label(rule.origin))
    if tier.end is TierEnd.DENY and tier.isolation is not None:
        yield Step(ANY, Action.DENY, tier.isolation.id, isolation_label(tier.isolation.origins))


def _fewer(parts: list[Part]) -> list[Part]:
    """Multiply neighbours until there are few enough, those first that make the fewest rules."""
    while len(parts) > MOST_PARTS:
        at = min(range(len(parts) - 1), key=lambda at: _size(parts[at], parts[at + 1]))
        if _size(parts[at], parts[at + 1]) > _MOST_STEPS:
            raise StackRefused(f"{len(parts)} tiers that pass to the next one make more than {_MOST_STEPS} rules")
        parts[at : at + 2] = [tuple(_multiplied(parts[at], parts[at + 1]))]
    return parts


def _size(part: Part, following: Part) -> int:
    passes = sum(step.action is Action.PASS for step in part)
    return len(part) + (passes + 1) * (len(following) + 1)


def _multiplied(part: Part, following: Part) -> Iterator[Step]:
    for step in part:
        if step.action is Action.PASS:
            yield from _beyond(step, following)
        else:
            yield step
        if step.ends:
            return
    yield from following


def _beyond(step: Step, following: Part) -> Iterator[Step]:
    """Yield what the next part does with whoever a rule passes to it."""
    for other in following:
        match = both(step.match, other.match)
        if match is None:
            continue
        yield replace(other, match=match)
        if match == step.match and other.action is not Action.LOG:
            return
    yield step


def both(one: Match, other: Match) -> Match | None:
    """Return the match that holds where both hold, None if that is nowhere.

    :raises StackRefused: no single match says it
    """
    if one == ANY:
        return other
    if _differ(one.family, other.family) or _differ(one.protocol, other.protocol):
        return None
    protocol = other.protocol if one.protocol is None else one.protocol
    excluded = {number for number in (one.not_protocol, other.not_protocol) if number is not None}
    if protocol in excluded:
        return None
    if protocol is None and len(excluded) > 1:
        raise StackRefused("too many tiers pass to the next one, with rules about all protocols but one, and but another one")
    wanted = [_common(one.ports, other.ports), _common(one.source_ports, other.source_ports)]
    icmp = _common_icmp(one.icmp, other.icmp)
    if None in (*wanted, icmp):
        return None
    return Match(
        family=one.family or other.family,
        protocol=protocol,
        not_protocol=excluded.pop() if excluded and protocol is None else None,
        peer=tuple(dict.fromkeys((*one.peer, *other.peer))),
        ports=wanted[0] or (),
        not_ports=(*one.not_ports, *other.not_ports),
        source_ports=wanted[1] or (),
        not_source_ports=(*one.not_source_ports, *other.not_source_ports),
        icmp=icmp or (),
        not_icmp=(*one.not_icmp, *other.not_icmp),
    )


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _common(one: Sequence[PortRange], other: Sequence[PortRange]) -> tuple[PortRange, ...] | None:
    """Return the ports that are in both; an empty list has them all. None: there are none."""
    if not one or not other:
        return (*one, *other)
    shared = (PortRange(max(mine.first, theirs.first), min(mine.last, theirs.last)) for mine in one for theirs in other)
    return tuple(sorted({ports for ports in shared if ports.first <= ports.last})) or None


def _common_icmp(one: Sequence[IcmpType], other: Sequence[IcmpType]) -> tuple[IcmpType, ...] | None:
    if not one or not other:
        return (*one, *other)
    shared = {
        mine if mine.code is not None else theirs
        for mine in one
        for theirs in other
        if mine.type == theirs.type and (mine.code == theirs.code or None in (mine.code, theirs.code))
    }
    return tuple(sorted(shared, key=lambda icmp: (icmp.type, -1 if icmp.code is None else icmp.code))) or None
