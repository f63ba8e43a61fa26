"""The program: everything one node must enforce, in no dataplane's vocabulary.

Frozen, slotted data whose invariants are checked when it is built. Read from the bottom up: a `Program` has endpoints, an
endpoint's direction has tiers, a tier names policies, a policy has rules, a rule matches address sets. Policies and sets
are shared and named by their content; see ``docs/explanation/ir.md`` for why each piece is as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, NewType

from polyplane.errors import InvalidProgram
from polyplane.ir.cidr import Cidr, Family
from polyplane.ir.members import Members

#: Version of the IR's meaning; a backend states the one it was written for (`Capabilities.ir_version`).
IR_VERSION: Final = 1

#: ``namespace/name`` of the pod.
EndpointId = NewType("EndpointId", str)
#: Content-derived name of an address set: equal selectors give equal ids.
SetId = NewType("SetId", str)
#: Content-derived name of a policy: a changed policy is another policy.
PolicyId = NewType("PolicyId", str)

#: Protocol numbers whose header starts with source and destination port.
PROTOCOLS_WITH_PORTS: Final = frozenset({6, 17, 132})
TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132
ICMP: Final = 1
ICMPV6: Final = 58

#: ICMPv6 types of neighbour discovery (RFC 4861): always pass, or IPv6 stops working.
NEIGHBOUR_DISCOVERY: Final = frozenset({133, 134, 135, 136, 137})


def digest(*parts: str) -> str:
    """16 hex digits over the parts, each delimited by its length so that no two lists of parts collide by concatenation."""
    content = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


class Direction(StrEnum):
    """Way of the traffic, seen from the endpoint."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Action(StrEnum):
    """What a matching rule does."""

    ALLOW = "allow"
    DENY = "deny"
    #: Leave this tier; the next one decides.
    PASS = "pass"
    #: Write a log record and go on with the next rule.
    LOG = "log"


class TierEnd(StrEnum):
    """What happens when no rule of a tier matched."""

    NEXT = "next"
    DENY = "deny"


class Established(StrEnum):
    """What a policy change means for connections that are already open."""

    #: Every packet in the original direction meets the current policy: connections no longer allowed are cut.
    RECHECK = "recheck"
    #: An open connection stays open until it ends.
    KEEP = "keep"


class DenyAction(StrEnum):
    """What the sender of a denied packet notices."""

    DROP = "drop"
    #: TCP reset, or ICMP "administratively prohibited".
    REJECT = "reject"


class PortRange(NamedTuple):
    """Inclusive range of port numbers, 0 to 65535."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class IcmpType(NamedTuple):
    """ICMP or ICMPv6 type and, unless None, code (0 to 255 each)."""

    type: int
    code: int | None = None

    def __str__(self) -> str:
        return str(self.type) if self.code is None else f"{self.type}/{self.code}"


@dataclass(frozen=True, slots=True)
class PeerTerm:
    """The peer's address is in any of these sets, or with ``negated`` in none of them; no sets at all: in nothing."""

    sets: tuple[SetId, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        if list(self.sets) != sorted(set(self.sets)):
            raise InvalidProgram(f"sets of a peer term must be sorted and distinct: {self.sets}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """All given parts must hold; a part left out holds for every packet.

    ``peer`` terms are and-ed; ``()`` is any peer, while a term without sets is no peer. Ports, source ports and ICMP types
    are or-ed inside; their ``not_`` twins exclude. ``not_protocol`` excludes one protocol.
    """

    family: Family | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    peer: tuple[PeerTerm, ...] = ()
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()
    source_ports: tuple[PortRange, ...] = ()
    not_source_ports: tuple[PortRange, ...] = ()
    icmp: tuple[IcmpType, ...] = ()
    not_icmp: tuple[IcmpType, ...] = ()

    def __post_init__(self) -> None:
        for number in (self.protocol, self.not_protocol):
            if number is not None and not 0 <= number <= 255:
                raise InvalidProgram(f"protocol {number} is not in 0..255")
        for ranges in (self.ports, self.not_ports, self.source_ports, self.not_source_ports):
            for ports in ranges:
                if not 0 <= ports.first <= ports.last <= 65535:
                    raise InvalidProgram(f"port range {ports} is not inside 0..65535")
            if ranges and self.protocol not in PROTOCOLS_WITH_PORTS:
                raise InvalidProgram(f"ports need one of the protocols {sorted(PROTOCOLS_WITH_PORTS)}, not {self.protocol}")
        if (self.icmp or self.not_icmp) and self.protocol not in (ICMP, ICMPV6):
            raise InvalidProgram(f"ICMP types need protocol {ICMP} or {ICMPV6}, not {self.protocol}")


#: Matches every packet.
ANY: Final = Match()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The rule of an API object that an IR rule comes from; ``index`` None is the isolation the object brings about."""

    kind: str
    namespace: str
    name: str
    direction: Direction
    index: int | None = None

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        rule = "isolation" if self.index is None else f"{self.direction}[{self.index}]"
        return f"{self.kind} {where} {rule}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One action, one match, and where it comes from.

    ``id`` (1 to 2**32-1) is the same on every node and after every restart; several IR rules that come from one rule of the
    API object share it. 0 is reserved for "no rule decided".
    """

    id: int
    action: Action
    match: Match = ANY
    origin: Origin

    def __post_init__(self) -> None:
        if not 0 < self.id < 1 << 32:
            raise InvalidProgram(f"rule id {self.id} of {self.origin} is not in 1..2**32-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one source object in one direction; the first match decides. Shared by all endpoints it applies to."""

    id: PolicyId
    direction: Direction
    rules: tuple[Rule, ...]

    @property
    def sets(self) -> frozenset[SetId]:
        """Ids of all address sets that the rules name."""
        return frozenset(set_id for rule in self.rules for term in rule.match.peer for set_id in term.sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Why a tier ends in deny: the objects that isolate the endpoint in this direction, under one rule id."""

    id: int
    origins: tuple[Origin, ...]

    def __str__(self) -> str:
        return "isolated by " + ", ".join(str(origin).removesuffix(" isolation") for origin in self.origins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Policies in order and what happens at their end.

    ``isolation`` is given exactly when ``end`` is DENY. ``exempts_self``: traffic from the endpoint to itself (through a
    service, since traffic to its own address never leaves it) skips this tier, as NetworkPolicy has it.
    """

    name: str
    policies: tuple[PolicyId, ...]
    end: TierEnd = TierEnd.NEXT
    isolation: Isolation | None = None
    exempts_self: bool = False

    def __post_init__(self) -> None:
        if (self.isolation is not None) != (self.end is TierEnd.DENY):
            raise InvalidProgram(f"tier {self.name!r}: an isolation goes with end = deny, and only with it")


#: A direction's tiers, in order; past the last: allow. Empty: the endpoint is not subject to policy in that direction.
Stack = tuple[Tier, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One pod's attachment on this node.

    ``interface`` is the host-side network interface, None where it is unknown: the backend then goes by address.
    ``addresses`` are host prefixes, sorted; at least one.
    """

    id: EndpointId
    interface: str | None = None
    addresses: tuple[Cidr, ...]
    ingress: Stack = ()
    egress: Stack = ()

    def __post_init__(self) -> None:
        if not self.addresses or any(not address.is_host for address in self.addresses):
            raise InvalidProgram(f"endpoint {self.id}: needs at least one address, and only host addresses: {self.addresses}")

    def stack(self, direction: Direction) -> Stack:
        """Return the tiers of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def isolations(self) -> Iterator[Isolation]:
        """Yield the isolations that end its tiers."""
        for tier in (*self.ingress, *self.egress):
            if tier.isolation is not None:
                yield tier.isolation


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSet:
    """A named set of prefixes, shared by all rules that mean the same peers; ``label`` says for people whom."""

    id: SetId
    label: str
    members: Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator chose once for the whole node."""

    established: Established = Established.RECHECK
    deny_action: DenyAction = DenyAction.DROP


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Everything this node must enforce, at one revision.

    ``node_addresses``: the node's own; traffic from the node to its pods is always allowed. The mappings are keyed by the
    ``id`` of their values and must not be changed by anybody.
    """

    revision: int = 0
    endpoints: Mapping[EndpointId, Endpoint] = field(default_factory=dict)
    policies: Mapping[PolicyId, Policy] = field(default_factory=dict)
    sets: Mapping[SetId, AddressSet] = field(default_factory=dict)
    node_addresses: frozenset[Cidr] = frozenset()
    options: Options = Options()

    def deciders(self) -> Iterator[Rule | Isolation]:
        """Yield whatever has a rule id: all rules, and the isolations that end tiers, one that ends several tiers several times."""
        for policy in self.policies.values():
            yield from policy.rules
        for endpoint in self.endpoints.values():
            yield from endpoint.isolations()

    def same_content(self, other: Program) -> bool:
        """Whether both enforce the same, whatever their revisions."""
        return (
            self.endpoints == other.endpoints
            and self.policies == other.policies
            and self.sets == other.sets
            and self.node_addresses == other.node_addresses
            and self.options == other.options
        )

    def check(self) -> None:
        """Check what no single value can: that every name resolves and keys agree with values.

        :raises InvalidProgram: naming the first dangling reference or wrong key
        """
        for table in (self.endpoints, self.policies, self.sets):
            for key, value in table.items():
                if key != value.id:
                    raise InvalidProgram(f"{type(value).__name__} {value.id} is stored under {key}")
        for endpoint in self.endpoints.values():
            for direction in Direction:
                for policy_id in (policy_id for tier in endpoint.stack(direction) for policy_id in tier.policies):
                    policy = self.policies.get(policy_id)
                    if policy is None or policy.direction is not direction:
                        raise InvalidProgram(f"endpoint {endpoint.id} names {direction} policy {policy_id}, which is not there")
        for policy in self.policies.values():
            for set_id in policy.sets:
                if set_id not in self.sets:
                    raise InvalidProgram(f"policy {policy.id} names set {set_id}, which is not there")


#: Enforces nothing.
EMPTY: Final = Program()
