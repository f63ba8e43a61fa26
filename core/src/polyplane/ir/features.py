"""What a policy can ask of a dataplane once the core has lowered everything it can, and what a backend answers.

Named ports, ``except``, selectors and defaults are lowered in the core and are therefore no features.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from polyplane.errors import InvalidProgram
from polyplane.ir.cidr import Family
from polyplane.ir.program import IR_VERSION, PROTOCOLS_WITH_PORTS, SCTP, Action, Rule


class Feature(StrEnum):
    """One thing a program can ask of a backend."""

    #: Tell IPv6 addresses apart and filter them.
    IPV6 = "ipv6"
    #: Match SCTP ports.
    SCTP = "sctp"
    #: Match protocols other than TCP, UDP, SCTP and ICMP by number.
    OTHER_PROTOCOLS = "other-protocols"
    #: Match ICMP and ICMPv6 by type and code.
    ICMP_TYPES = "icmp-types"
    #: Match ranges of destination ports.
    PORT_RANGES = "port-ranges"
    #: Match source ports.
    SOURCE_PORTS = "source-ports"
    #: Match "everything but": protocols, ports, ICMP types.
    NEGATION = "negation"
    #: Match peers that are in none of some sets.
    NEGATED_PEERS = "negated-peers"
    #: Deny rules and passing to the next tier.
    TIERS = "tiers"
    #: Log and go on.
    LOG = "log"
    #: Cut connections that a changed policy no longer allows (`Established.RECHECK`).
    RECHECK_ESTABLISHED = "recheck-established"
    #: Leave open connections alone (`Established.KEEP`).
    KEEP_ESTABLISHED = "keep-established"
    #: Answer denied packets (`DenyAction.REJECT`).
    REJECT = "reject"
    #: Packet and byte counters per rule id.
    COUNTERS = "counters"
    #: Tell endpoints apart by host-side interface, so that a forged source address gains nothing.
    INTERFACES = "interfaces"


class Vantage(StrEnum):
    """Where a backend sees packets, and so which interface of a pod means anything to it."""

    #: At network devices as routing knows them: at a bridge, never at its ports.
    DEVICES = "devices"
    #: At ports of Linux bridges, too.
    PORTS = "ports"
    #: At ports of Open vSwitch.
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why a feature is missing; ``since_kernel`` (``6.4``): from that version on it would be there."""

    feature: Feature
    reason: str
    since_kernel: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do on this machine: every feature is either supported or explained.

    ``missing`` names what keeps the backend from running here at all, each with the remedy; empty when it can run.
    ``details`` is free information for ``polyplane backends`` (versions, variants). ``vantage`` says which interfaces of pods
    are looked for on the node.
    """

    supported: frozenset[Feature]
    unsupported: tuple[Unsupported, ...] = ()
    missing: tuple[str, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    ir_version: int = IR_VERSION
    vantage: Vantage = Vantage.DEVICES

    def __post_init__(self) -> None:
        explained = [gap.feature for gap in self.unsupported]
        if len(set(explained)) != len(explained) or self.supported & set(explained):
            raise InvalidProgram("a feature is stated twice: supported and unsupported must be disjoint")
        if silent := set(Feature) - self.supported - set(explained):
            raise InvalidProgram(f"capabilities say nothing about {', '.join(sorted(silent))}: support it or give the reason")

    def reason(self, feature: Feature) -> str | None:
        """Return why ``feature`` is unsupported, None if it is supported."""
        return next((gap.reason for gap in self.unsupported if gap.feature is feature), None)


#: Everything: what `evaluate` itself can do.
ALL_FEATURES = Capabilities(supported=frozenset(Feature))


def required_features(rule: Rule) -> frozenset[Feature]:
    """Return what a backend must support to render the rule."""
    match = rule.match
    needed = set()
    if match.family is Family.IPV6:
        needed.add(Feature.IPV6)
    if match.protocol == SCTP:
        needed.add(Feature.SCTP)
    elif match.protocol is not None and match.protocol not in (*PROTOCOLS_WITH_PORTS, 1, 58):
        needed.add(Feature.OTHER_PROTOCOLS)
    if match.icmp or match.not_icmp:
        needed.add(Feature.ICMP_TYPES)
    if any(ports.first != ports.last for ports in match.ports):
        needed.add(Feature.PORT_RANGES)
    if match.source_ports or match.not_source_ports:
        needed.add(Feature.SOURCE_PORTS)
    if match.not_protocol is not None or match.not_ports or match.not_source_ports or match.not_icmp:
        needed.add(Feature.NEGATION)
    if any(term.negated for term in match.peer):
        needed.add(Feature.NEGATED_PEERS)
    if rule.action in (Action.DENY, Action.PASS):
        needed.add(Feature.TIERS)
    if rule.action is Action.LOG:
        needed.add(Feature.LOG)
    return frozenset(needed)
