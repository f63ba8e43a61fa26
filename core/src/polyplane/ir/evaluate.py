"""`evaluate`: the executable definition of what a program means.

It decides about a packet that opens a connection (or is one of its own, for protocols without connections), at the moment
it is forwarded on the node: after any service translation. What an open connection may do is `Options.established`.
Every dataplane must agree with this module; `MemoryBackend` and ``polyplane explain`` are built on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import (
    ICMPV6,
    NEIGHBOUR_DISCOVERY,
    Action,
    Direction,
    Endpoint,
    IcmpType,
    Isolation,
    Match,
    PeerTerm,
    PortRange,
    Program,
    Rule,
    Stack,
    TierEnd,
)


class Verdict(StrEnum):
    """Whether the packet may go on."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The parts of a packet that policy can see.

    ``source`` and ``destination`` are host prefixes of one family. Ports are given for TCP (6), UDP (17) and SCTP (132),
    ``icmp`` for ICMP (1) and ICMPv6 (58). ``from_node``: sent by the node itself, not forwarded by it.
    """

    source: Cidr
    destination: Cidr
    protocol: int
    source_port: int = 0
    port: int = 0
    icmp: IcmpType | None = None
    from_node: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One station of the trail: where (``ingress of x/a``), what was looked at, and what came of it."""

    where: str
    subject: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one direction of one endpoint says about a packet.

    ``rule_id`` 0: no rule decided, nothing isolates. ``decided_by`` is the deciding rule or isolation, None likewise.
    """

    verdict: Verdict
    rule_id: int = 0
    decided_by: Rule | Isolation | None = None
    logged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The verdict on a packet, which rule decided it, and how it came about.

    ``egress`` and ``ingress`` are the decisions at the two ends, None where that end is no endpoint of this node or the
    packet is exempt. ``decision`` is the one that counts: the first denial, else the last allowance.
    """

    verdict: Verdict
    egress: Decision | None
    ingress: Decision | None
    trail: tuple[Step, ...]

    @property
    def decision(self) -> Decision:
        """The decision that settled the verdict."""
        for decision in (self.egress, self.ingress):
            if decision is not None and decision.verdict is Verdict.DENY:
                return decision
        return self.ingress or self.egress or NO_RULE


NO_RULE: Final = Decision(verdict=Verdict.ALLOW)


def evaluate(program: Program, packet: Packet) -> Evaluation:
    """Decide about one packet.

    In this order: neighbour discovery passes; the source's egress decides; the destination's ingress decides, unless the
    packet comes from the node itself. Both ends must allow.

    :param program: any consistent program (`Program.check`)
    :param packet: as seen in the node's forwarding, after service translation
    """
    trail: list[Step] = []
    if packet.protocol == ICMPV6 and packet.icmp is not None and packet.icmp.type in NEIGHBOUR_DISCOVERY:
        trail.append(Step(where="node", subject="neighbour discovery", outcome="always passes"))
        return Evaluation(verdict=Verdict.ALLOW, egress=None, ingress=None, trail=tuple(trail))
    source = None if packet.from_node else endpoint_of(program, packet.source)
    destination = endpoint_of(program, packet.destination)
    to_self = source is not None and source is destination
    egress = ingress = None
    if source is not None:
        egress = decide(program, source, Direction.EGRESS, packet, to_self=to_self, trail=trail)
    if destination is not None and (egress is None or egress.verdict is Verdict.ALLOW):
        if packet.from_node or packet.source in program.node_addresses:
            trail.append(Step(where=f"ingress of {destination.id}", subject="own node", outcome="always allowed"))
        else:
            ingress = decide(program, destination, Direction.INGRESS, packet, to_self=to_self, trail=trail)
    denied = any(decision is not None and decision.verdict is Verdict.DENY for decision in (egress, ingress))
    return Evaluation(verdict=Verdict.DENY if denied else Verdict.ALLOW, egress=egress, ingress=ingress, trail=tuple(trail))


def endpoint_of(program: Program, address: Cidr) -> Endpoint | None:
    """Return the endpoint that owns the address, None if none of this node does.

    Two may claim it for a moment, while one pod follows another: the first by id has it, as in every backend.
    """
    claims = (endpoint for endpoint in program.endpoints.values() if address in endpoint.addresses)
    return min(claims, key=lambda endpoint: endpoint.id, default=None)


def decide(
    program: Program,
    endpoint: Endpoint,
    direction: Direction,
    packet: Packet,
    *,
    to_self: bool = False,
    trail: list[Step] | None = None,
) -> Decision:
    """Decide one direction of one endpoint; appends its steps to ``trail``."""
    peer = packet.destination if direction is Direction.EGRESS else packet.source
    return decide_stack(
        program, endpoint.stack(direction), packet, peer, to_self=to_self, where=f"{direction} of {endpoint.id}", trail=trail
    )


def decide_stack(
    program: Program,
    stack: Stack,
    packet: Packet,
    peer: Cidr,
    *,
    to_self: bool = False,
    where: str = "",
    trail: list[Step] | None = None,
) -> Decision:
    """Run a packet through a stack of tiers; past the last tier: allow."""
    steps = trail if trail is not None else []
    logged: list[int] = []
    for tier in stack:
        if to_self and tier.exempts_self:
            steps.append(Step(where=where, subject=f"tier {tier.name}", outcome="does not apply to traffic to itself"))
            continue
        passed = False
        for rule in (rule for policy_id in tier.policies for rule in program.policies[policy_id].rules):
            if not matches(program, rule.match, packet, peer):
                steps.append(Step(where=where, subject=str(rule.origin), outcome="does not match"))
                continue
            steps.append(Step(where=where, subject=str(rule.origin), outcome=rule.action.value))
            if rule.action is Action.LOG:
                logged.append(rule.id)
                continue
            if rule.action is Action.PASS:
                passed = True
                break
            verdict = Verdict.ALLOW if rule.action is Action.ALLOW else Verdict.DENY
            return Decision(verdict=verdict, rule_id=rule.id, decided_by=rule, logged=tuple(logged))
        if not passed and tier.end is TierEnd.DENY and tier.isolation is not None:
            steps.append(Step(where=where, subject=f"end of tier {tier.name}", outcome=str(tier.isolation)))
            return Decision(verdict=Verdict.DENY, rule_id=tier.isolation.id, decided_by=tier.isolation, logged=tuple(logged))
    steps.append(Step(where=where, subject="no rule", outcome="allow"))
    return Decision(verdict=Verdict.ALLOW, logged=tuple(logged))


def matches(program: Program, match: Match, packet: Packet, peer: Cidr) -> bool:
    """Whether all parts of the match hold for the packet, whose other side is ``peer``."""
    return (
        (match.family is None or match.family == peer.family)
        and (match.protocol is None or match.protocol == packet.protocol)
        and (match.not_protocol is None or match.not_protocol != packet.protocol)
        and (not match.ports or in_ranges(packet.port, match.ports))
        and not in_ranges(packet.port, match.not_ports)
        and (not match.source_ports or in_ranges(packet.source_port, match.source_ports))
        and not in_ranges(packet.source_port, match.not_source_ports)
        and (not match.icmp or icmp_matches(packet.icmp, match.icmp))
        and not icmp_matches(packet.icmp, match.not_icmp)
        and all(term_holds(program, term, peer) for term in match.peer)
    )


def term_holds(program: Program, term: PeerTerm, peer: Cidr) -> bool:
    """Whether the peer's address is where the term says it is."""
    inside = any(program.sets[set_id].members.covers_address(peer.family, peer.address) for set_id in term.sets)
    return inside is not term.negated


def in_ranges(port: int, ranges: Collection[PortRange]) -> bool:
    """Whether the port is in any of the ranges."""
    return any(ports.first <= port <= ports.last for ports in ranges)


def icmp_matches(icmp: IcmpType | None, wanted: Collection[IcmpType]) -> bool:
    """Whether the packet's ICMP type and code are among the wanted ones."""
    return icmp is not None and any(want.type == icmp.type and want.code in (None, icmp.code) for want in wanted)
