"""From manifests to a sandbox: gives pods and nodes what only a running cluster would tell, and makes the topology of it."""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from polyplane.cluster.model import Node, ObjectKey, Pod, PutObject
from polyplane.errors import PolyplaneError
from polyplane_conformance.probe.model import family_of
from polyplane_conformance.sandbox.manifests import INTERFACE_ANNOTATION, node_manifest
from polyplane_conformance.sandbox.topology import DEFAULT_NODES, HostSpec, NodeSpec, PodSpec, Port, Topology

#: The node of pods that name none.
_FIRST_NODE: Final = DEFAULT_NODES[0].name
#: A host outside the cluster, in the ranges that are for documentation.
_OUTSIDE: Final = HostSpec(name="outside", addresses=("203.0.113.9", "2001:db8::9"), ports=())
_POD_RANGES: Final = ("10.65.0.0/16", "fd65::/112")
_NODE_RANGES: Final = ("172.31.250.0/24", "fd31:250::/112")


class Casting:
    """Manifests, completed (`events`), and the topology they make, once `settle` has been given what was read from them."""

    def __init__(self, events: Sequence[PutObject]) -> None:
        self.events = events
        self.topology = Topology()

    def settle(self, pods: Iterable[Pod], nodes: Iterable[Node]) -> None:
        """Make the topology of what a store has decoded; finished pods, which have no address, take no part.

        :raises PolyplaneError: when there is no pod
        """
        playing = [pod for pod in pods if pod.addresses]
        if not playing:
            raise PolyplaneError("the manifests have no pod that runs; a demo needs at least one")
        homes = {pod.node for pod in playing}
        specs = tuple(
            NodeSpec(name=node.name, addresses=tuple(address.address_text for address in node.addresses), labels=node.labels)
            for node in sorted(nodes, key=lambda node: node.name)
            if node.name in homes
        )
        self.topology = Topology(pods=tuple(_pod(pod) for pod in playing), nodes=specs, hosts=(_OUTSIDE,))


def _pod(pod: Pod) -> PodSpec:
    ports = {(port.protocol, port.port): Port(port.protocol, port.port, port.name) for port in pod.ports}
    return PodSpec(
        namespace=pod.namespace,
        name=pod.name,
        addresses=tuple(address.address_text for address in pod.addresses),
        labels=pod.labels,
        ports=tuple(ports.values()),
        node=pod.node,
        host_network=pod.host_network,
        interface=pod.interface or "",
    )


def cast_pods(events: Sequence[PutObject]) -> Casting:
    """Complete the objects of a cluster: pods get a node, addresses and the name of their interface, nodes their addresses."""
    sound = [event for event in events if _is_sound(event)]
    used = {address for event in sound for address in _addresses(event.raw)}
    free_for_pods, free_for_nodes = _free(_POD_RANGES, used), _free(_NODE_RANGES, used)
    pods = [_place_pod(event) for event in sound if event.key.kind == "Pod"]
    known = {event.key.name: event for event in sound if event.key.kind == "Node"}
    added = [_node_event(name) for name in sorted({_home(event) for event in pods} - known.keys())]
    nodes = [_complete_node(event, free_for_nodes) for event in (*known.values(), *added)]
    addresses = {event.key.name: tuple(_addresses(event.raw)) for event in nodes}
    complete = [_complete_pod(event, addresses[_home(event)] if _on_host(event) else next(free_for_pods)) for event in pods]
    rest = [event for event in events if event not in sound or event.key.kind not in {"Pod", "Node"}]
    return Casting([*rest, *nodes, *complete])


def _is_sound(event: PutObject) -> bool:
    """Whether the parts read here are mappings, as they should; an object where they are not is left to the store, which says what is wrong."""
    return all(isinstance(event.raw.get(key) or {}, Mapping) for key in ("metadata", "spec", "status"))


def _home(event: PutObject) -> str:
    return str(event.raw["spec"]["nodeName"])


def _on_host(event: PutObject) -> bool:
    return bool(event.raw["spec"].get("hostNetwork"))


def _addresses(raw: Any) -> list[str]:
    status = raw.get("status") or {}
    entries = [entry.get("ip") or entry.get("address") or "" for key in ("podIPs", "addresses") for entry in status.get(key) or ()]
    return [address for address in (*entries, status.get("podIP")) if address]


def _free(ranges: tuple[str, ...], used: set[str]) -> Iterator[tuple[str, ...]]:
    """Yield address pairs, one of each range, that nobody has."""
    for pair in zip(*(ipaddress.ip_network(text).hosts() for text in ranges), strict=False):
        texts = tuple(str(address) for address in pair)
        if not used.intersection(texts):
            yield texts


def _place_pod(event: PutObject) -> PutObject:
    raw = copy.deepcopy(dict(event.raw))
    raw["spec"] = {"nodeName": _FIRST_NODE} | (raw.get("spec") or {})
    return replace(event, raw=raw)


def _complete_pod(event: PutObject, addresses: Sequence[str]) -> PutObject:
    raw = dict(event.raw)
    raw["status"] = {"phase": "Running"} | (raw.get("status") or {})
    if not _addresses(raw):
        raw["status"]["podIPs"] = [{"ip": address} for address in addresses]
    if not _on_host(event):
        name = PodSpec(namespace=event.key.namespace or "default", name=event.key.name).host_interface
        metadata = raw["metadata"] = dict(raw["metadata"])
        metadata["annotations"] = {INTERFACE_ANNOTATION: name} | (metadata.get("annotations") or {})
    return replace(event, raw=raw)


def _node_event(name: str) -> PutObject:
    raw = node_manifest(NodeSpec(name=name, addresses=()))
    return PutObject(key=ObjectKey("v1", "Node", "", name), raw=raw, where="made up for the demo")


def _complete_node(event: PutObject, free: Iterator[tuple[str, ...]]) -> PutObject:
    """A node needs an address of each family, or pods of that family could not be routed between nodes."""
    raw = copy.deepcopy(dict(event.raw))
    status = raw.setdefault("status", {})
    entries = status["addresses"] = [entry for entry in status.get("addresses") or () if entry.get("type") == "InternalIP"]
    families = {family_of(entry["address"]) for entry in entries}
    entries += [{"type": "InternalIP", "address": address} for address in next(free) if family_of(address) not in families]
    return replace(event, raw=raw)
