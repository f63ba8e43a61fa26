"""Pods, namespaces and nodes from raw objects: only the fields that policy needs, by msgspec's typed decoding.

Unlike policies, these objects are the cluster's own and full of fields nobody here cares about: unknown ones are ignored.
Null counts as missing everywhere, as for the API server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from polyplane.cluster.addresses import parse_address, parse_prefix
from polyplane.cluster.fields import shown
from polyplane.cluster.metadata import DEFAULT_NAMESPACE, raw_metadata
from polyplane.cluster.model import ContainerPort, Namespace, Node, Pod
from polyplane.cluster.names import dns_label_problem, label_key_problem, label_value_problem, port_name_problem, subdomain_problem
from polyplane.errors import InvalidObject
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import SCTP, TCP, UDP

#: Set by whoever creates the pod's network; names the end of its link that is on the node.
INTERFACE_ANNOTATION: Final = "polyplane.dev/host-interface"
#: Every namespace carries its own name under this label, and nobody can change that (Kubernetes 1.22).
NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"

_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_NODE_ADDRESS_TYPES: Final = frozenset({"InternalIP", "ExternalIP"})
#: IFNAMSIZ of linux/if.h less the closing zero.
_INTERFACE_LIMIT: Final = 15


class _Struct(msgspec.Struct, rename="camel", gc=False):
    """Base of the raw shapes below."""


class _Metadata(_Struct):
    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None


class _Port(_Struct):
    container_port: int | None = None
    name: str | None = None
    protocol: str | None = None


class _Container(_Struct):
    ports: list[_Port | None] | None = None


class _PodSpec(_Struct):
    node_name: str | None = None
    host_network: bool | None = None
    containers: list[_Container | None] | None = None
    init_containers: list[_Container | None] | None = None


class _PodIp(_Struct):
    ip: str | None = None


class _PodStatus(_Struct):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[_PodIp | None] | None = msgspec.field(default=None, name="podIPs")


class _Pod(_Struct):
    metadata: _Metadata
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


class _Namespace(_Struct):
    metadata: _Metadata


class _NodeAddress(_Struct):
    type: str | None = None
    address: str | None = None


class _NodeStatus(_Struct):
    addresses: list[_NodeAddress | None] | None = None


class _NodeSpec(_Struct):
    pod_cidr: str | None = msgspec.field(default=None, name="podCIDR")
    pod_cidrs: list[str | None] | None = msgspec.field(default=None, name="podCIDRs")


class _Node(_Struct):
    metadata: _Metadata
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None


_Shape = TypeVar("_Shape", _Pod, _Namespace, _Node)


class _Object:
    """One raw object being decoded: knows its identity for errors."""

    def __init__(self, kind: str, raw: object, *, namespaced: bool) -> None:
        self.kind = kind
        metadata = raw_metadata(raw)
        name, namespace = metadata.get("name"), metadata.get("namespace")
        self.name = name[:253] if isinstance(name, str) and name else "(unnamed)"
        self.namespace = (namespace[:63] if isinstance(namespace, str) and namespace else DEFAULT_NAMESPACE) if namespaced else ""

    def invalid(self, field: str, problem: str) -> InvalidObject:
        return InvalidObject(kind=self.kind, namespace=self.namespace, name=self.name, field=field, problem=problem)

    def convert(self, raw: object, shape: type[_Shape]) -> _Shape:
        try:
            return msgspec.convert(raw, shape)
        except msgspec.ValidationError as error:
            # msgspec says "Expected `str`, got `int` - at `$.spec.nodeName`".
            text, _, place = str(error).partition(" - at ")
            field = place.strip("`").removeprefix("key in ").strip("`").removeprefix("$").lstrip(".") or "object"
            raise self.invalid(field, f"{text[:1].lower()}{text[1:]}; correct its type") from error

    def check(self, field: str, problem: str | None) -> None:
        if problem is not None:
            raise self.invalid(field, problem)

    def names(self, metadata: _Metadata) -> None:
        if not metadata.name:
            raise self.invalid("metadata.name", "is missing; give the object a name")
        self.check("metadata.name", subdomain_problem(metadata.name) if self.kind != "Namespace" else dns_label_problem(metadata.name))
        if self.namespace:
            self.check("metadata.namespace", dns_label_problem(metadata.namespace or DEFAULT_NAMESPACE))

    def labels(self, metadata: _Metadata) -> dict[str, str]:
        labels = {key: value or "" for key, value in (metadata.labels or {}).items()}
        for key, value in labels.items():
            self.check("metadata.labels", label_key_problem(key))
            if (problem := label_value_problem(value)) is not None:
                raise self.invalid(f"metadata.labels[{key}]", problem)
        return labels

    def address(self, field: str, text: str | None) -> Cidr:
        address = parse_address(text or "")
        if address is None:
            raise self.invalid(field, f"{shown(text or '')} is not an IP address; write one like 10.1.2.3 or fd00::3")
        return address

    def prefix(self, field: str, text: str) -> Cidr:
        found = parse_prefix(text)
        if found is None:
            raise self.invalid(field, f"{shown(text)} is not a prefix; write one like 10.1.2.0/24 or fd00::/64")
        return found[0]


def decode_pod(raw: Mapping[str, Any]) -> Pod:
    """Read a v1 Pod.

    A finished pod has no addresses, since another pod may have them already; one that is only being deleted keeps them until
    they leave its status.

    :raises polyplane.errors.InvalidObject: naming the field
    """
    this = _Object("Pod", raw, namespaced=True)
    pod = this.convert(raw, _Pod)
    this.names(pod.metadata)
    spec, status = pod.spec or _PodSpec(), pod.status or _PodStatus()
    addresses = set()
    for index, item in enumerate(status.pod_ips or ()):
        addresses.add(this.address(f"status.podIPs[{index}].ip", item.ip if item else None))
    if not addresses and status.pod_ip:
        addresses.add(this.address("status.podIP", status.pod_ip))
    ports = _container_ports(this, "containers", spec.containers) | _container_ports(this, "initContainers", spec.init_containers)
    return Pod(
        namespace=this.namespace,
        name=this.name,
        labels=this.labels(pod.metadata),
        node=spec.node_name or "",
        addresses=() if status.phase in _FINISHED else tuple(sorted(addresses)),
        host_network=bool(spec.host_network),
        ports=tuple(sorted(ports, key=lambda port: (port.name, port.protocol, port.port))),
        interface=_interface(this, pod.metadata),
    )


def _container_ports(this: _Object, list_name: str, containers: Iterable[_Container | None] | None) -> set[ContainerPort]:
    found = set()
    for number, container in enumerate(containers or ()):
        for index, item in enumerate((container.ports if container else None) or ()):
            port = item or _Port()
            try:
                found.add(_container_port(port.name or "", port.protocol or "TCP", port.container_port))
            except _BadPort as bad:
                raise this.invalid(f"spec.{list_name}[{number}].ports[{index}].{bad.field}", bad.problem) from None
    return found


class _BadPort(ValueError):
    """What is wrong with a container port, and in which of its fields."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field, self.problem = field, problem


@lru_cache(4096)
def _container_port(name: str, protocol: str, number: int | None) -> ContainerPort:
    """Check and return a port. Thousands of pods declare the same few, and share them."""
    known = _PROTOCOLS.get(protocol)
    if known is None:
        raise _BadPort("protocol", f"{shown(protocol)} is not supported; use TCP, UDP or SCTP, in upper case")
    if number is None or not 1 <= number <= 65535:
        raise _BadPort("containerPort", f"{shown(number)} is not a port; write a number between 1 and 65535")
    if name and (problem := port_name_problem(name)) is not None:
        raise _BadPort("name", problem)
    return ContainerPort(name, known, number)


def _interface(this: _Object, metadata: _Metadata) -> str | None:
    name = (metadata.annotations or {}).get(INTERFACE_ANNOTATION)
    if not name:
        return None
    # The kernel's own rule (dev_valid_name), which also keeps the name harmless in native rule text with the quote added.
    if (
        len(name) > _INTERFACE_LIMIT
        or name in {".", ".."}
        or not name.isascii()
        or not name.isprintable()
        or any(c in '/: "' for c in name)
    ):
        raise this.invalid(
            f"metadata.annotations[{INTERFACE_ANNOTATION}]",
            f"{shown(name)} is not an interface name; write one of at most {_INTERFACE_LIMIT} printable characters without spaces, '/', ':' and quotes",
        )
    return name


def implied_namespace(name: str) -> Namespace:
    """Return what is known of a namespace of which no object was seen: its name."""
    return Namespace(name=name, labels={NAMESPACE_NAME_LABEL: name})


def decode_namespace(raw: Mapping[str, Any]) -> Namespace:
    """Read a v1 Namespace; the label with its name is there whatever the object says.

    :raises polyplane.errors.InvalidObject: naming the field
    """
    this = _Object("Namespace", raw, namespaced=False)
    namespace = this.convert(raw, _Namespace)
    this.names(namespace.metadata)
    return Namespace(name=this.name, labels={**this.labels(namespace.metadata), NAMESPACE_NAME_LABEL: this.name})


def decode_node(raw: Mapping[str, Any]) -> Node:
    """Read a v1 Node with its internal and external addresses and the prefixes of its pods.

    :raises polyplane.errors.InvalidObject: naming the field
    """
    this = _Object("Node", raw, namespaced=False)
    node = this.convert(raw, _Node)
    this.names(node.metadata)
    addresses = {
        this.address(f"status.addresses[{index}].address", item.address)
        for index, item in enumerate((node.status.addresses if node.status else None) or ())
        if item is not None and item.type in _NODE_ADDRESS_TYPES
    }
    spec = node.spec or _NodeSpec()
    # podCIDRs repeats podCIDR as its first; old servers have the latter alone.
    prefixes = {
        this.prefix(f"spec.podCIDRs[{index}]", text) for index, text in enumerate(spec.pod_cidrs or [spec.pod_cidr]) if text is not None
    }
    return Node(name=this.name, labels=this.labels(node.metadata), addresses=tuple(sorted(addresses)), pod_prefixes=tuple(sorted(prefixes)))


#: Decoders of the kinds that are no policies; all of API version v1.
DECODERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Pod | Namespace | Node]]] = {
    "Pod": decode_pod,
    "Namespace": decode_namespace,
    "Node": decode_node,
}
