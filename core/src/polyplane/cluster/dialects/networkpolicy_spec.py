"""``spec`` of a networking.k8s.io/v1 NetworkPolicy: defaults and validation as its API server does them.

The result holds what a stored object would: nothing is missing that has a default, and everything in it is valid. What the
words mean for packets is decided in `polyplane.cluster.dialects.networkpolicy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polyplane.cluster.addresses import parse_prefix, written
from polyplane.cluster.fields import Field, shown
from polyplane.cluster.label_selector import parse_label_selector
from polyplane.cluster.model import LabelSelector
from polyplane.cluster.names import port_name_problem
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import SCTP, TCP, UDP, Direction

_SPEC: Final = ("podSelector", "policyTypes", "ingress", "egress")
_PORT: Final = ("protocol", "port", "endPort")
_PEER: Final = ("podSelector", "namespaceSelector", "ipBlock")
_BLOCK: Final = ("cidr", "except")

#: The values of ``policyTypes``.
POLICY_TYPES: Final = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
#: The values of ``protocol``, and their IP protocol numbers.
PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}


@dataclass(frozen=True, slots=True)
class PortSpec:
    """One item of ``ports``: a protocol number, and a port (None: all of them), a name or the range ``port..end_port``."""

    protocol: int
    port: int | str | None
    end_port: int | None


@dataclass(frozen=True, slots=True)
class IpBlock:
    """``ipBlock`` of a peer."""

    cidr: Cidr
    excepts: tuple[Cidr, ...]


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """One item of ``from`` or ``to``: an ``ip_block`` alone, or at least one of the selectors."""

    pod_selector: LabelSelector | None
    namespace_selector: LabelSelector | None
    ip_block: IpBlock | None


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One item of ``ingress`` or ``egress``; no peers means all, and no ports means all."""

    peers: tuple[PeerSpec, ...]
    ports: tuple[PortSpec, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """The whole ``spec`` after defaulting."""

    pod_selector: LabelSelector
    policy_types: frozenset[Direction]
    rules: dict[Direction, tuple[RuleSpec, ...]]


def parse_spec(spec: Field) -> Spec:
    """Apply the defaults to ``spec`` and check it.

    :raises polyplane.errors.InvalidObject: for the first thing that the API server would reject
    """
    members = spec.members(_SPEC)
    rules = {
        Direction.INGRESS: tuple(_rule(item, "from") for item in members["ingress"].items()),
        Direction.EGRESS: tuple(_rule(item, "to") for item in members["egress"].items()),
    }
    policy_types = _policy_types(members["policyTypes"])
    if not policy_types:
        policy_types = frozenset({Direction.INGRESS} | ({Direction.EGRESS} if rules[Direction.EGRESS] else set()))
    for word, direction in POLICY_TYPES.items():
        if rules[direction] and direction not in policy_types:
            members[direction.value].warn(f"has no effect, since spec.policyTypes lacks {word}; add it there or remove the rules")
    return Spec(parse_label_selector(members["podSelector"]), policy_types, rules)


def _policy_types(field: Field) -> frozenset[Direction]:
    items = field.items()
    if len(items) > 2:
        raise field.invalid(f"has {len(items)} entries; write at most two, of Ingress and Egress")
    directions = set()
    for item in items:
        word = item.text()
        if word not in POLICY_TYPES:
            raise item.invalid(f"{shown(word)} is not a policy type; use Ingress or Egress")
        directions.add(POLICY_TYPES[word])
    return frozenset(directions)


def _rule(field: Field, peers_name: str) -> RuleSpec:
    if not field.present:
        # The API server decodes a null item as the empty rule. Somebody who left an item blank hardly meant that.
        field.warn("an empty item allows everything; write {} if that is meant")
    members = field.members((peers_name, "ports"))
    ports = tuple(_port(item) for item in members["ports"].items())
    peers = tuple(_peer(item) for item in members[peers_name].items())
    return RuleSpec(peers, ports)


def _port(field: Field) -> PortSpec:
    members = field.members(_PORT)
    protocol = TCP
    if members["protocol"].present:
        word = members["protocol"].text()
        if word not in PROTOCOLS:
            raise members["protocol"].invalid(f"{shown(word)} is not supported; use TCP, UDP or SCTP, in upper case")
        protocol = PROTOCOLS[word]
    port = _port_number_or_name(members["port"])
    return PortSpec(protocol, port, _end_port(members["endPort"], port))


def _port_number_or_name(field: Field) -> int | str | None:
    if not field.present:
        return None
    if isinstance(field.value, str):
        if problem := port_name_problem(field.value):
            raise field.invalid(problem)
        return field.value
    number = field.integer()
    if not 1 <= number <= 65535:
        raise field.invalid(f"{shown(number)} is not a port; write a number between 1 and 65535")
    return number


def _end_port(field: Field, port: int | str | None) -> int | None:
    if not field.present:
        return None
    end = field.integer()
    if port is None:
        raise field.invalid("may not be given without port; add port as the first of the range, or remove endPort")
    if isinstance(port, str):
        raise field.invalid(f"may not be given when port is a name ({port}); write port as a number, or remove endPort")
    if end < port:
        raise field.invalid(f"{shown(end)} is less than port {port}; write the last port of the range, {port} or more")
    if end > 65535:
        raise field.invalid(f"{shown(end)} is not a port; write a number between {port} and 65535")
    return end


def _peer(field: Field) -> PeerSpec:
    members = field.members(_PEER)
    pods, namespaces, block = (members[name] for name in _PEER)
    selectors = pods.present or namespaces.present
    if not selectors and not block.present:
        raise field.invalid("must specify a peer; write podSelector, namespaceSelector or ipBlock")
    if selectors and block.present:
        raise block.invalid("may not stand beside podSelector or namespaceSelector; make it an item of its own in the list")
    return PeerSpec(
        parse_label_selector(pods) if pods.present else None,
        parse_label_selector(namespaces) if namespaces.present else None,
        _ip_block(block) if block.present else None,
    )


def _ip_block(field: Field) -> IpBlock:
    members = field.members(_BLOCK)
    if not members["cidr"].text():
        raise members["cidr"].invalid("is required; write a prefix like 10.0.0.0/8 or fd00::/8")
    cidr = _prefix(members["cidr"])
    excepts = []
    for item in members["except"].items():
        hole = _prefix(item)
        if not cidr.covers(hole) or hole.length <= cidr.length:
            raise item.invalid(
                f"{written(hole)} must be a strict subset of cidr {written(cidr)}; write a longer prefix inside it, or remove it"
            )
        excepts.append(hole)
    return IpBlock(cidr, tuple(excepts))


def _prefix(field: Field) -> Cidr:
    text = field.text()
    parsed = parse_prefix(text)
    if parsed is None:
        remedy = (
            "write an address with a prefix length, like 10.0.0.0/8 or 10.1.2.3/32"
            if "/" not in text
            else "write one like 10.0.0.0/8 or fd00::/8"
        )
        raise field.invalid(f"{shown(text)} is not an IP prefix; {remedy}")
    prefix, warnings = parsed
    if warnings:
        field.warn(f"{shown(text)} means {written(prefix)}: {' and '.join(warnings)}; newer API servers reject it, write {written(prefix)}")
    return prefix
