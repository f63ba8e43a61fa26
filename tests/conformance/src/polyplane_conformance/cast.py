"""The cast that scenarios share: namespaces x, y, z, each with pods a, b, c, and who else may send packets.

Every pod is labelled ``pod: <name>``, every namespace ``ns: <name>``. Every pod declares ports 80 and 81 for TCP, UDP and
SCTP, named ``serve-<port>-<protocol>``. Pods d are understudies: their addresses exist but nobody plays them until a scenario
adds them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

NAMESPACES: Final = ("x", "y", "z")
PODS: Final = tuple(f"{namespace}/{name}" for namespace in NAMESPACES for name in "abc")
UNDERSTUDIES: Final = tuple(f"{namespace}/d" for namespace in NAMESPACES)
#: Declared ports of a pod that says nothing else, as ``name=number/protocol``.
PORTS: Final = tuple(f"serve-{port}-{protocol.lower()}={port}/{protocol}" for port in (80, 81) for protocol in ("TCP", "UDP", "SCTP"))

#: The node under test.
NODE: Final = "node-1"
#: Another node of the cluster.
REMOTE_NODE: Final = "node-2"
#: The node under test as a sender or receiver of packets.
NODE_ACTOR: Final = "node"
#: The other node likewise.
REMOTE_NODE_ACTOR: Final = "remote-node"
#: A host outside the cluster.
OUTSIDE: Final = "outside"
#: Actors that are no pods, and the node that each of them is.
HOSTS: Final[Mapping[str, str | None]] = {NODE_ACTOR: NODE, REMOTE_NODE_ACTOR: REMOTE_NODE, OUTSIDE: None}

Addresses = Mapping[int, str]


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Which actor has which addresses: actor to IP version (4, 6) to address. Pods are ``namespace/name``."""

    addresses: Mapping[str, Addresses]

    def of(self, actor: str) -> Addresses:
        """Return an actor's addresses.

        :raises KeyError: when the plan does not know the actor
        """
        return self.addresses[actor]

    def prefix(self, actor: str, family: int, length: int | None = None) -> str:
        """Return the prefix of ``length`` bits (default: all) around an actor's address."""
        address = self.of(actor)[family]
        bits = 32 if family == 4 else 128
        return str(ipaddress.ip_network(f"{address}/{bits if length is None else length}", strict=False))


def plan(pods: Iterable[str] = (*PODS, *UNDERSTUDIES)) -> AddressPlan:
    """Return the plan of the model tier: each namespace has a /24 and a /64, each pod name its host part.

    Hosts lie outside the pods' ranges. A pod outside the cast is numbered after its namespace's and name's first letter.
    """
    addresses: dict[str, Addresses] = {
        NODE_ACTOR: {4: "172.30.0.1", 6: "fd00:30::1"},
        REMOTE_NODE_ACTOR: {4: "172.30.0.2", 6: "fd00:30::2"},
        OUTSIDE: {4: "203.0.113.9", 6: "2001:db8::9"},
    }
    for pod in pods:
        namespace, _, name = pod.partition("/")
        net = ord(namespace[0]) - ord("x") + 1 if namespace in NAMESPACES else ord(namespace[0])
        host = ord(name[0]) - ord("a") + 10 + 32 * (len(name) - 1)
        addresses[pod] = {4: f"10.244.{net}.{host}", 6: f"fd00:10:244:{net}::{host:x}"}
    return AddressPlan(addresses)
