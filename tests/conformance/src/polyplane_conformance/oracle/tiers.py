"""What the text of the APIs for cluster administrators says: rules in order, tiers, and rules that fail closed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polyplane_conformance.oracle.admission import selector_refusals
from polyplane_conformance.oracle.cluster_admission import SPECS
from polyplane_conformance.oracle.matching import NAME_LABEL, container_ports, selects

Raw = Mapping[str, Any]

_PEERS = {"ingress": {"namespaces", "pods"}, "egress": {"namespaces", "pods", "nodes", "networks"}}
_ALLOWING = ("Accept", "Allow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One direction of a connection: the pods at both ends, if they are any, and the address of the other side."""

    direction: str
    subject: Raw
    address: str
    peer: Raw | None
    destination: Raw | None
    protocol: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What else one has to know: labels of namespaces by name, and labels and addresses of nodes."""

    namespaces: Mapping[str, Mapping[str, str]]
    nodes: Iterable[tuple[Mapping[str, str], frozenset[str]]]

    def of(self, pod: Raw) -> Mapping[str, str]:
        """Return the labels of a pod's namespace."""
        name = pod["metadata"]["namespace"]
        return self.namespaces.get(name, {NAME_LABEL: name})


def tier_of(policy: Raw) -> str:
    """``Admin`` or ``Baseline``."""
    if policy["kind"] == "ClusterNetworkPolicy":
        return str(policy["spec"]["tier"])
    return "Admin" if policy["kind"] == "AdminNetworkPolicy" else "Baseline"


def in_order(policies: Iterable[Raw]) -> list[Raw]:
    """Sort policies of a tier: by priority, then name, then kind; the one without a priority comes last."""
    return sorted(policies, key=lambda one: (one["spec"].get("priority", 1001), one["metadata"]["name"], one["kind"]))


def ask_tier(policies: Iterable[Raw], question: Question, facts: Facts) -> tuple[str, str] | None:
    """Return what the first matching rule of a tier says (allow, deny, pass), and which one; None: none matches."""
    for policy in in_order(policies):
        if not _pods_match(policy["spec"]["subject"], question.subject, facts):
            continue
        for index, rule in enumerate(policy["spec"].get(question.direction) or ()):
            verdict = _ask_rule(rule, question, facts)
            if verdict is not None:
                return verdict, f"rule {index} of {policy['kind']} {policy['metadata']['name']}"
    return None


def _ask_rule(rule: Raw, question: Question, facts: Facts) -> str | None:
    side = "from" if question.direction == "ingress" else "to"
    ports = rule.get("protocols") if rule.get("protocols") is not None else rule.get("ports")
    if next(_unreadable(rule[side], ports, question.direction), None) is not None:
        return None if rule["action"] in _ALLOWING else "deny"
    peer = any(_peer_matches(item, question, facts) for item in rule[side])
    if not peer or (ports is not None and not any(_port_matches(item, question) for item in ports)):
        return None
    return "allow" if rule["action"] in _ALLOWING else str(rule["action"]).lower()


# --- what makes a rule fail closed --------------------------------------------------------------------------------------


def _unreadable(peers: Iterable[Raw | None], ports: Iterable[Raw | None] | None, direction: str) -> Iterator[str]:
    for item in peers:
        given = _given(item)
        if len(given) != 1 or not set(given) <= _PEERS[direction]:
            yield "a peer of a kind that is not known"
        for kind, selector in given.items():
            if kind == "pods":
                if not set(_given(selector)) <= {"namespaceSelector", "podSelector"}:
                    yield "a peer that asks for more than is known"
                for part in ("namespaceSelector", "podSelector"):
                    yield from selector_refusals(part, selector.get(part))
            elif kind in ("namespaces", "nodes"):
                yield from selector_refusals(kind, selector)
    for item in ports or ():
        yield from _unreadable_port(_given(item))


def _unreadable_port(item: Raw) -> Iterator[str]:
    if len(item) != 1:
        yield "a port that says nothing, or more than is known"
    for kind, value in item.items():
        match kind:
            case "tcp" | "udp" | "sctp":
                if set(_given(value)) != {"destinationPort"} or len(_given(value["destinationPort"])) != 1:
                    yield "a protocol of which not all is known"
                elif not set(_given(value["destinationPort"])) <= {"number", "range"}:
                    yield "a port of a kind that is not known"
            case "portNumber" | "portRange":
                if value.get("protocol") not in (None, "TCP", "UDP", "SCTP"):
                    yield "a protocol without ports"
                if kind == "portRange" and value["start"] > value["end"]:
                    yield "a range of nothing"
            case "destinationNamedPort" | "namedPort":
                pass
            case _:
                yield "a port of a kind that is not known"


def _given(value: Raw | None) -> dict[str, Any]:
    return {name: item for name, item in (value or {}).items() if item is not None}


# --- matching ----------------------------------------------------------------------------------------------------------


def _pods_match(item: Raw, pod: Raw, facts: Facts) -> bool:
    """Whether ``namespaces`` or ``pods`` mean a pod."""
    given = _given(item)
    if "namespaces" in given:
        return selects(given["namespaces"], facts.of(pod))
    both = given["pods"]
    return selects(both.get("namespaceSelector"), facts.of(pod)) and selects(both["podSelector"], pod["metadata"].get("labels") or {})


def _peer_matches(item: Raw, question: Question, facts: Facts) -> bool:
    given = _given(item)
    if "networks" in given:
        address = ipaddress.ip_address(question.address)
        networks = (ipaddress.ip_network(text, strict=False) for text in given["networks"])
        return any(network.version == address.version and address in network for network in networks)
    if "nodes" in given:
        return any(selects(given["nodes"], labels) and question.address in addresses for labels, addresses in facts.nodes)
    return question.peer is not None and _pods_match(given, question.peer, facts)


def _port_matches(item: Raw, question: Question) -> bool:
    ((kind, value),) = _given(item).items()
    if kind in ("destinationNamedPort", "namedPort"):
        ports = () if question.destination is None else container_ports(question.destination)
        asked = (value, question.protocol, question.port)
        return any((port.get("name"), port.get("protocol", "TCP"), port["containerPort"]) == asked for port in ports)
    if kind in ("tcp", "udp", "sctp"):
        ((form, port),) = _given(value["destinationPort"]).items()
        protocol, first, last = kind.upper(), *((port, port) if form == "number" else (port["start"], port["end"]))
    else:
        protocol = value.get("protocol") or "TCP"
        first, last = (value["port"],) * 2 if kind == "portNumber" else (value["start"], value["end"])
    return protocol == question.protocol and question.port is not None and first <= question.port <= last


KINDS = frozenset(SPECS)
