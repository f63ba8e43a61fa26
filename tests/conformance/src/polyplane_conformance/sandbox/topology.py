"""`Topology`: what a sandbox consists of, as data.

The first node is the node under test. Its pods hang on it by one veth each and are routed; other nodes, with pods of their
own, and hosts outside the cluster are one hop away from it, so that everything that is not local passes through it:

```
 x/a ── pp-x_a ─┐              ┌─ to-node-2 ── node-2 ── z/c
 x/b ── pp-x_b ─┤   node-1     │
 y/a ── pp-y_a ─┴ (under test)─┴─ to-outside ── outside
```
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from polyplane.errors import PolyplaneError
from polyplane_conformance.probe.model import PROTOCOL_NUMBERS, SCTP, TCP, UDP, family_of, protocol_name

#: Linux allows 15 characters (IFNAMSIZ - 1).
_LONGEST_INTERFACE: Final = 15


class Wiring(StrEnum):
    """How a node's pods are connected to it: what a backend's dataplane asks for."""

    #: By one veth each; the node's kernel routes between them.
    ROUTED = "routed"
    #: As ports of an Open vSwitch bridge; see `bridges`.
    BRIDGE = "bridge"


class TopologyError(PolyplaneError, ValueError):
    """A topology contradicts itself; the message names the part and the remedy."""


def interface_name(prefix: str, name: str) -> str:
    """Return ``prefix`` plus name, or a digest of the name where that is longer than Linux allows or not plain ASCII."""
    plain = f"{prefix}{name}"
    if len(plain) <= _LONGEST_INTERFACE and re.fullmatch(r"[A-Za-z0-9_.-]+", plain):
        return plain
    return prefix + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()[: _LONGEST_INTERFACE - len(prefix)]


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port to serve: IP protocol number, port (0 for protocols without ports), and its name in the pod's manifest."""

    protocol: int
    number: int = 0
    name: str = ""

    @property
    def manifest_name(self) -> str:
        """The given name, otherwise ``serve-<port>-<protocol>``."""
        return self.name or f"serve-{self.number}-{protocol_name(self.protocol)}"


#: What pods serve unless told otherwise: TCP, UDP and SCTP on 80 and 81.
DEFAULT_PORTS: Final = tuple(Port(protocol, number) for number in (80, 81) for protocol in (TCP, UDP, SCTP))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node: at most one address of each family."""

    name: str
    addresses: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A host outside the cluster."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[Port, ...] = DEFAULT_PORTS


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """A pod: one or several addresses, IPv4 or IPv6 or both; ``node`` empty: the node under test.

    With ``host_network`` it is a process in its node's own namespace, and ``addresses`` are ignored: they are its node's.
    ``interface`` empty: the host-side interface is named after the pod.
    """

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = DEFAULT_PORTS
    node: str = ""
    host_network: bool = False
    interface: str = ""

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def host_interface(self) -> str:
        """Name of the interface on the node: given, or ``pp-<namespace>_<name>`` (no Kubernetes name has an underscore)."""
        return self.interface or interface_name("pp-", f"{self.namespace}_{self.name}")


DEFAULT_NODES: Final = (
    NodeSpec(name="node-1", addresses=("172.31.250.1", "fd31:250::1")),
    NodeSpec(name="node-2", addresses=("172.31.250.2", "fd31:250::2")),
)
DEFAULT_HOSTS: Final = (HostSpec(name="outside", addresses=("172.31.251.1", "fd31:251::1")),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything a sandbox consists of. ``namespaces`` are the labels of the pods' namespaces; those not listed have none.

    :raises TopologyError: at construction, for addresses or names used twice, unknown nodes, pods without an address
    """

    pods: tuple[PodSpec, ...] = ()
    nodes: tuple[NodeSpec, ...] = DEFAULT_NODES
    hosts: tuple[HostSpec, ...] = DEFAULT_HOSTS
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nodes:
            raise TopologyError("a topology needs at least one node, the one under test")
        _check_unique("name", [*(pod.id for pod in self.pods), *(machine.name for machine in self.machines)])
        owned = [address for part in self.machines for address in part.addresses]
        owned += [address for pod in self.pods if not pod.host_network for address in pod.addresses]
        _check_unique("address", [str(_address(text)) for text in owned])
        known = {node.name for node in self.nodes}
        for part in self.machines:
            if not part.addresses or len({family_of(address) for address in part.addresses}) != len(part.addresses):
                raise TopologyError(f"{part.name}: needs one address of one or of each family, has {part.addresses}")
        for pod in self.pods:
            if pod.node and pod.node not in known:
                raise TopologyError(f"pod {pod.id}: node {pod.node!r} is not in the topology; it has {sorted(known)}")
            if not pod.addresses and not pod.host_network:
                raise TopologyError(f"pod {pod.id}: needs an address")
            families = {family_of(address) for address in pod.addresses}
            if pod.node not in {"", self.node.name} and not pod.host_network and not families <= self._linked(pod.node):
                raise TopologyError(
                    f"pod {pod.id}: nodes {self.node.name} and {pod.node} lack an address of its family, so it cannot be routed"
                )
            if len(pod.host_interface) > _LONGEST_INTERFACE:
                raise TopologyError(f"pod {pod.id}: interface {pod.host_interface!r} is longer than {_LONGEST_INTERFACE} characters")
        for node in self.nodes:
            _check_unique(f"interface on {node.name}", [pod.host_interface for pod in self.pods_of(node.name)])

    def _linked(self, name: str) -> set[int]:
        other = next(node for node in self.nodes if node.name == name)
        ours, theirs = ({family_of(address) for address in node.addresses} for node in (self.node, other))
        return ours & theirs

    @property
    def machines(self) -> tuple[NodeSpec | HostSpec, ...]:
        """The node under test, the other nodes, the hosts."""
        return (*self.nodes, *self.hosts)

    @property
    def node(self) -> NodeSpec:
        """The node under test."""
        return self.nodes[0]

    def pods_of(self, node: str) -> tuple[PodSpec, ...]:
        """Return the pods with an interface on a node (not those of its host network)."""
        return tuple(pod for pod in self.pods if self.node_of(pod).name == node and not pod.host_network)

    def node_of(self, pod: PodSpec) -> NodeSpec:
        """Return the node that a pod runs on."""
        return next(node for node in self.nodes if node.name == (pod.node or self.node.name))

    def find(self, name: str) -> PodSpec | NodeSpec | HostSpec:
        """Return the pod (``namespace/name``), node or host of this name.

        :raises TopologyError: when there is none
        """
        for part in self.machines:
            if part.name == name:
                return part
        for pod in self.pods:
            if pod.id == name:
                return pod
        raise TopologyError(f"no pod, node or host is named {name!r}")

    def addresses_of(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a pod, node or host; a host-network pod has its node's."""
        part = self.find(name)
        if isinstance(part, PodSpec) and part.host_network:
            return self.node_of(part).addresses
        return part.addresses

    def address_of(self, name: str, family: int) -> str | None:
        """Return its first address of a family, None if it has none."""
        return next((address for address in self.addresses_of(name) if family_of(address) == family), None)

    def with_pods(self, pods: Iterable[PodSpec]) -> Topology:
        """Return the same topology with other pods."""
        return replace(self, pods=tuple(pods))

    @classmethod
    def grid(
        cls,
        namespaces: Iterable[str] = "xyz",
        names: Iterable[str] = "abc",
        *,
        families: tuple[int, ...] = (4, 6),
        ports: tuple[Port, ...] = DEFAULT_PORTS,
        remote: Iterable[str] = (),
    ) -> Topology:
        """Return the classic square: every name in every namespace, labelled ``pod=<name>`` and ``ns=<namespace>``.

        Addresses are 10.65.<namespace>.<pod> and fd65::<namespace>:<pod>, counted from 1. Pods whose id is in ``remote`` are
        on the second node.
        """
        spaces, far, members = list(namespaces), set(remote), list(names)
        pods = [
            PodSpec(
                namespace=space,
                name=name,
                addresses=tuple(f"10.65.{row}.{column}" if family == 4 else f"fd65::{row:x}:{column:x}" for family in families),
                labels={"pod": name},
                ports=ports,
                node="node-2" if f"{space}/{name}" in far else "",
            )
            for row, space in enumerate(spaces, 1)
            for column, name in enumerate(members, 1)
        ]
        return cls(pods=tuple(pods), namespaces={space: {"ns": space} for space in spaces})


def _check_unique(what: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise TopologyError(f"{what} {value!r} is used {values.count(value)} times; give each part its own")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise TopologyError(f"{text!r} is not an IP address") from error


def manifest_protocol(port: Port) -> str | None:
    """``TCP``, ``UDP`` or ``SCTP``; None for protocols that a container port cannot name."""
    return protocol_name(port.protocol).upper() if port.protocol in PROTOCOL_NUMBERS.values() else None
