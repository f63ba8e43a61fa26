"""What a topology lets one ask: its cells, and what a probe's names mean in addresses, ports and places. Pure: no packet is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from polyplane_conformance.probe.model import ICMP, ICMPV6, Probe, Traffic
from polyplane_conformance.probe.wire import Order
from polyplane_conformance.reachability import Cell
from polyplane_conformance.sandbox.namespaces import SandboxError
from polyplane_conformance.sandbox.topology import PodSpec, Topology


def place_of(topology: Topology, name: str) -> str:
    """Return whose network namespace a pod, node or host is in: its own, or a host-network pod's node's."""
    part = topology.find(name)
    return topology.node_of(part).name if isinstance(part, PodSpec) and part.host_network else name


def all_traffic(topology: Topology, destinations: Iterable[str]) -> list[Traffic]:
    """Return every kind of traffic that one of the destinations serves, sorted, ICMP last."""
    found = set()
    for name in destinations:
        for family in (4, 6):
            if topology.address_of(name, family):
                found |= {Traffic(port.protocol, port.number, family) for port in topology.find(name).ports}
                found.add(Traffic.parse("icmp", family))
    return sorted(found, key=lambda kind: (kind.port == 0, kind.family, kind))


def cells(topology: Topology, sources: Sequence[str], destinations: Sequence[str], kinds: Iterable[Traffic]) -> list[Cell]:
    """Return what can be asked: pairs without a common family and traffic that a destination does not serve are left out."""
    return [
        Cell(row, column, kind)
        for kind in kinds
        for row in sources
        for column in destinations
        if topology.address_of(row, kind.family) and topology.address_of(column, kind.family) and _serves(topology, column, kind)
    ]


def _serves(topology: Topology, name: str, kind: Traffic) -> bool:
    ports = topology.find(name).ports
    return kind.protocol in {ICMP, ICMPV6} or any((port.protocol, port.number) == (kind.protocol, kind.port) for port in ports)


def order(topology: Topology, probe: Probe) -> Order:
    """Translate a probe's names into places and addresses, and choose its twin.

    The twin of a probe to a pod is the pod's own node asking the same: policy never concerns that. A pod's own node has the
    server asking itself. Nodes and hosts are no endpoints; they are asked by the node under test.

    :raises TopologyError: for an unknown name
    :raises SandboxError: where source or destination has no address of the family
    """
    traffic = probe.traffic
    own = topology.address_of(probe.destination, traffic.family)
    address = probe.address or own
    if address is None or own is None or not topology.address_of(probe.source, traffic.family):
        raise SandboxError(f"{probe}: source and destination do not both have an IPv{traffic.family} address")
    destination = topology.find(probe.destination)
    twin = (topology.node_of(destination) if isinstance(destination, PodSpec) else topology.node).name
    place, port = place_of(topology, probe.source), traffic.port
    if place != twin:
        return Order(place, address, traffic.protocol, port, probe.source_port, twin, address, port)
    served = [served.number for served in destination.ports if served.protocol == traffic.protocol]
    twin_port = port if port in served or not served else served[0]
    return Order(place, address, traffic.protocol, port, probe.source_port, place_of(topology, probe.destination), own, twin_port)
