"""From a topology to ``ip -batch`` lines: pure text, one list for each namespace. `sandbox` brings it into the kernel.

Pods are routed, not bridged. Their gateway is the same everywhere, whatever their address: 169.254.1.1, an address on the
node's ``lo`` (no proxy ARP needed), and one link-local IPv6 address on every host-side interface.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polyplane_conformance.probe.model import family_of
from polyplane_conformance.sandbox.topology import HostSpec, NodeSpec, PodSpec, Topology, interface_name

GATEWAY4: Final = "169.254.1.1"
GATEWAY6: Final = "fe80::ecee:eeff:feee:eeee"

#: Of every namespace, before it has interfaces.
_COMMON_SYSCTLS: Final = {
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    # addresses are usable at once: nobody else is on the wire
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # below lie the ports that probes choose: polyplane_conformance.probe.numbers
    "net/ipv4/ip_local_port_range": "60000 65535",
    # rejections must arrive, however many: no rate limit on ICMP errors, neither by peer nor (1,000 a second by default) in all
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "100000",
    "net/ipv6/icmp/ratelimit": "0",
}
#: Of those that forward, too. Redirects would teach a pod to avoid the node when a service leads it back to itself.
NODE_SYSCTLS: Final = _COMMON_SYSCTLS | {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}
LEAF_SYSCTLS: Final = _COMMON_SYSCTLS | {
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
}


def uplink(name: str) -> str:
    """Name of the interface of the node under test that leads to another node or a host."""
    return interface_name("to-", name)


def _peers(ours: NodeSpec, theirs: NodeSpec | HostSpec) -> list[tuple[str, str]]:
    by_family = {family_of(address): address for address in ours.addresses}
    return [(by_family[family_of(address)], address) for address in theirs.addresses if family_of(address) in by_family]


def _point_to_point(ours: str, theirs: str, interface: str) -> str:
    length, nodad = (32, "") if family_of(ours) == 4 else (128, " nodad")
    return f"addr add {ours} peer {theirs}/{length} dev {interface}{nodad}"


def _host_route(address: str, rest: str) -> str:
    return f"route add {address}/{32 if family_of(address) == 4 else 128} {rest}"


def base(node: NodeSpec) -> list[str]:
    """Lines for a node: the pods' gateway, with a scope that keeps it from becoming anybody's source, and the node's addresses."""
    own = [
        f"addr add {address}/32 dev lo" if family_of(address) == 4 else f"addr add {address}/128 dev lo nodad" for address in node.addresses
    ]
    return ["link set lo up", f"addr add {GATEWAY4}/32 dev lo scope link", *own]


def attach_pod(node: NodeSpec, pod: PodSpec, pod_netns: str) -> list[str]:
    """Lines for the pod's node: the veth, its gateway address, the routes to the pod.

    The routes name the node's own address as source, which is what the node's probes of its pods come from.
    """
    name = pod.host_interface
    lines = [
        f"link add {name} type veth peer name eth0 netns {pod_netns}",
        f"link set {name} up",
        f"addr add {GATEWAY6}/64 dev {name} nodad",
    ]
    return lines + pod_routes(node, pod, pod.addresses)


def pod_routes(node: NodeSpec, pod: PodSpec, addresses: Iterable[str], *, verb: str = "add", interface: str = "") -> list[str]:
    """Lines for the pod's node: routes to the addresses; ``verb`` ``del`` removes them. ``interface`` empty: the pod's own."""
    sources = {family_of(address): address for address in node.addresses}
    lines = []
    for address in addresses:
        family = family_of(address)
        source = f" src {sources[family]}" if family in sources else ""
        line = _host_route(address, f"dev {interface or pod.host_interface}{' scope link' if family == 4 else ''}{source}")
        lines.append(line.replace("route add", f"route {verb}", 1))
    return lines


def pod_lines(pod: PodSpec) -> list[str]:
    """Lines for the pod's own namespace."""
    families = {family_of(address) for address in pod.addresses}
    lines = ["link set lo up", "link set eth0 up", *pod_addresses(pod.addresses)]
    if 4 in families:
        lines += gateway4()
    if 6 in families:
        lines += gateway6()
    return lines


def pod_addresses(addresses: Iterable[str], *, verb: str = "add") -> list[str]:
    """Lines for the pod's own namespace: add or, with ``verb`` ``del``, remove addresses."""
    return [
        f"addr {verb} {address}/32 dev eth0"
        if family_of(address) == 4
        else f"addr {verb} {address}/128 dev eth0{' nodad' * (verb == 'add')}"
        for address in addresses
    ]


def gateway4() -> list[str]:
    """Lines for a pod's namespace: the way out for IPv4; it goes when the last IPv4 address does."""
    return [f"route replace {GATEWAY4} dev eth0 scope link", f"route replace default via {GATEWAY4} dev eth0"]


def gateway6() -> list[str]:
    """Lines for a pod's namespace: the way out for IPv6."""
    return [f"route replace default via {GATEWAY6} dev eth0"]


def join(node: NodeSpec, other: NodeSpec | HostSpec, other_netns: str) -> list[str]:
    """Lines for the node under test: the link to another node or host."""
    name = uplink(other.name)
    lines = [f"link add {name} type veth peer name eth0 netns {other_netns}", f"link set {name} up"]
    return lines + [_point_to_point(ours, theirs, name) for ours, theirs in _peers(node, other)]


def joined(other: NodeSpec | HostSpec, node: NodeSpec) -> list[str]:
    """Lines for the other end of `join`.

    ``onlink``, because the kernel adds the route to an IPv6 peer a little later than the address, from a work queue.
    """
    lines = ["link set lo up", "link set eth0 up"]
    for ours, theirs in _peers(node, other):
        lines += [_point_to_point(theirs, ours, "eth0"), f"route add default via {ours} dev eth0 onlink"]
    return lines


def remote_routes(topology: Topology, pod: PodSpec, *, verb: str = "add") -> list[str]:
    """Lines for the node under test: the way to a pod of another node."""
    other = topology.node_of(pod)
    gateways = {family_of(theirs): (ours, theirs) for ours, theirs in _peers(topology.node, other)}
    lines = []
    for address in pod.addresses:
        ours, theirs = gateways[family_of(address)]
        line = _host_route(address, f"via {theirs} dev {uplink(other.name)} onlink src {ours}")
        lines.append(line.replace("route add", f"route {verb}", 1))
    return lines


def default_routes(topology: Topology) -> list[str]:
    """Lines for the node under test: everything unknown goes to the first host outside, as a node's gateway would have it."""
    if not topology.hosts:
        return []
    host = topology.hosts[0]
    return [f"route add default via {theirs} dev {uplink(host.name)} onlink src {ours}" for ours, theirs in _peers(topology.node, host)]
