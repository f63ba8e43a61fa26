"""`Oracle`: asks every policy about one connection and says why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from polyplane_conformance.oracle.matching import NAME_LABEL, in_block, policy_types, port_matches, selects
from polyplane_conformance.oracle.tiers import KINDS, Facts, Question, ask_tier, tier_of

Raw = Mapping[str, Any]

#: ICMPv6 types of neighbour discovery: never subject to policy.
NEIGHBOUR_DISCOVERY = range(133, 138)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One attempt to connect, after any service translation.

    ``protocol`` is TCP, UDP, SCTP or ICMP (which is ICMPv6 between IPv6 addresses), or a protocol number as text; ``port``
    belongs to the first three, ``icmp_type`` to the fourth.
    """

    source: str
    destination: str
    protocol: str
    port: int | None = None
    icmp_type: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether the connection is allowed, and the reasons in the order in which they were found."""

    allowed: bool
    trail: tuple[str, ...]


class Oracle:
    """Answers for one state of a cluster, given as its raw Namespace, Pod, Node and (valid) policy objects."""

    def __init__(self, objects: Iterable[Raw]) -> None:
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._policies: list[Raw] = []
        self._tiers: dict[str, list[Raw]] = {"Admin": [], "Baseline": []}
        self._pods: dict[str, Raw] = {}
        self._nodes: dict[str, frozenset[str]] = {}
        self._node_labels: dict[str, Mapping[str, str]] = {}
        self._selecting: dict[tuple[str, str], list[Raw]] = {}
        for item in objects:
            meta = item["metadata"]
            match item["kind"]:
                case "Namespace":
                    self._namespaces[meta["name"]] = {**(meta.get("labels") or {}), NAME_LABEL: meta["name"]}
                case "NetworkPolicy":
                    self._policies.append(item)
                case "Node":
                    addresses = (item.get("status") or {}).get("addresses") or ()
                    self._nodes[meta["name"]] = frozenset(entry["address"] for entry in addresses)
                    self._node_labels[meta["name"]] = meta.get("labels") or {}
                case "Pod":
                    self._place(item)
                case kind if kind in KINDS:
                    self._tiers[tier_of(item)].append(item)
        nodes = [(self._node_labels[name], addresses) for name, addresses in self._nodes.items()]
        self._facts = Facts(namespaces=self._namespaces, nodes=nodes)

    def _place(self, pod: Raw) -> None:
        """Note who owns which address: not finished pods, not pods that merely share their node's addresses."""
        spec = pod.get("spec") or {}
        status = pod.get("status") or {}
        if status.get("phase") in ("Succeeded", "Failed") or spec.get("hostNetwork") or not spec.get("nodeName"):
            return
        for entry in status.get("podIPs") or ():
            self._pods[entry["ip"]] = pod

    def ask(self, connection: Connection) -> Answer:
        """Say whether the connection is allowed: egress at its source and ingress at its destination, where those are pods.

        From a pod to itself means through a service: what a pod sends to its own address never leaves it.
        """
        trail: list[str] = []
        if ":" in connection.source and connection.protocol == "ICMP" and connection.icmp_type in NEIGHBOUR_DISCOVERY:
            return Answer(allowed=True, trail=("neighbour discovery is never subject to policy",))
        source = self._pods.get(connection.source)
        destination = self._pods.get(connection.destination)
        allowed = source is None or self._side("egress", source, connection, trail)
        if allowed and destination is not None:
            if connection.source in self._nodes.get(destination["spec"]["nodeName"], ()):
                trail.append(f"ingress of {_name(destination)}: comes from its own node, always allowed")
            else:
                allowed = self._side("ingress", destination, connection, trail)
        return Answer(allowed=allowed, trail=tuple(trail))

    def _side(self, direction: str, subject: Raw, connection: Connection, trail: list[str]) -> bool:
        """Whether one end lets the connection through: the admin tier, NetworkPolicy, the baseline tier, and else yes."""
        where = f"{direction} of {_name(subject)}"
        address = connection.destination if direction == "egress" else connection.source
        peer = self._pods.get(address)
        question = Question(
            direction=direction,
            subject=subject,
            address=address,
            peer=peer,
            destination=self._pods.get(connection.destination),
            protocol=connection.protocol,
            port=connection.port,
        )
        for tier in ("Admin", "NetworkPolicy", "Baseline"):
            if tier == "NetworkPolicy":
                if peer is subject:
                    trail.append(f"{where}: NetworkPolicy does not keep a pod from itself")
                    continue
                verdict = self._network_policies(direction, subject, connection, trail)
                if verdict is not None:
                    return verdict
                continue
            found = ask_tier(self._tiers[tier], question, self._facts)
            if found is not None:
                trail.append(f"{where}: {found[1]} says {found[0]}")
                if found[0] != "pass":
                    return found[0] == "allow"
        trail.append(f"{where}: nothing denies it")
        return True

    def _network_policies(self, direction: str, subject: Raw, connection: Connection, trail: list[str]) -> bool | None:
        """Whether some rule of some NetworkPolicy covers it; None where none isolates the pod in this direction."""
        where = f"{direction} of {_name(subject)}"
        policies = self._selecting_policies(direction, subject)
        if not policies:
            trail.append(f"{where}: no NetworkPolicy isolates it")
            return None
        for policy in policies:
            for index, rule in enumerate(policy["spec"].get(direction) or ()):
                if not self._rule_covers(policy, direction, rule, connection):
                    continue
                trail.append(f"{where}: allowed by rule {index} of {_name(policy)}")
                return True
        trail.append(f"{where}: isolated by {', '.join(_name(policy) for policy in policies)}, and no rule allows it")
        return False

    def _selecting_policies(self, direction: str, pod: Raw) -> list[Raw]:
        """All policies of the pod's namespace that select it and isolate this direction."""
        key = (direction, _name(pod))
        if key not in self._selecting:
            labels = pod["metadata"].get("labels") or {}
            self._selecting[key] = [
                policy
                for policy in self._policies
                if policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
                and direction.capitalize() in policy_types(policy.get("spec") or {})
                and selects((policy.get("spec") or {}).get("podSelector"), labels)
            ]
        return self._selecting[key]

    def _rule_covers(self, policy: Raw, direction: str, rule: Raw, connection: Connection) -> bool:
        """Whether some peer of the rule together with some port of it covers the connection; none given means any."""
        address = connection.destination if direction == "egress" else connection.source
        peer = self._pods.get(address)
        for item in rule.get("to" if direction == "egress" else "from") or (None,):
            if item is not None and not self._peer_matches(policy, item, address, peer):
                continue
            # A name is a container port of the destination, which a block of addresses does not have even where it covers a pod.
            nameless = direction == "egress" and item is not None and item.get("ipBlock") is not None
            destination = None if nameless else self._pods.get(connection.destination)
            ports = rule.get("ports") or ()
            if not ports or any(
                port_matches(port, protocol=connection.protocol, port=connection.port, destination=destination) for port in ports
            ):
                return True
        return False

    def _peer_matches(self, policy: Raw, item: Raw, address: str, peer: Raw | None) -> bool:
        """Whether one peer item covers the other side; selectors cover only pods, an ipBlock covers any address."""
        if item.get("ipBlock") is not None:
            return in_block(item["ipBlock"], address)
        if peer is None:
            return False
        namespace = peer["metadata"]["namespace"]
        if item.get("namespaceSelector") is None:
            if namespace != policy["metadata"]["namespace"]:
                return False
        elif not selects(item["namespaceSelector"], self._namespaces.get(namespace, {NAME_LABEL: namespace})):
            return False
        return selects(item.get("podSelector"), peer["metadata"].get("labels") or {})


def _name(item: Raw) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"
