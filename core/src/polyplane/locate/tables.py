"""`Tables`: links, host routes, neighbours and bridge ports, as the kernel's messages tell them. Pure: knows nothing of sockets.

A host route without a gateway to a veth, netkit or tun device names the interface (Calico, the ptp plugin, kindnet, the cloud
providers' own). A pod on a bridge has no interface of its own in the eyes of netfilter, which sees the bridge: such a pod goes
by its address, unless the backend sits at the bridge's ports. Then neighbours and the forwarding database name the port.

A node may itself be at the end of a veth, or have a peer at a tunnel. So an interface that leads on to a gateway is no pod's, and
neither is the address of a peer, whose route the kernel makes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from polyplane.errors import InvalidProgram
from polyplane.ir.cidr import BITS, Cidr

#: Kinds of devices that have a pod, and nothing else, at their other end.
_POD_DEVICES: Final = frozenset({"veth", "netkit", "tun"})
_UNICAST: Final = 1  # RTN_UNICAST of linux/rtnetlink.h
_LOCAL_TABLE: Final = 255  # RT_TABLE_LOCAL
_BY_KERNEL: Final = 2  # RTPROT_KERNEL
_UP: Final = 1  # IFF_UP of linux/if.h
_BRIDGE: Final = 7  # AF_BRIDGE


class _Link(NamedTuple):
    name: str
    kind: str
    master: int | None


class Tables:
    """What the messages taken so far add up to.

    :param ports: whether ports of bridges are seen, too
    """

    def __init__(self, *, ports: bool = False) -> None:
        self._ports = ports
        self._links: dict[int, _Link] = {}
        self._routes: dict[Cidr, int] = {}
        #: Interfaces of routes by way of gateways, by all that tells one such route from the next.
        self._gateways: dict[tuple[object, ...], frozenset[int]] = {}
        self._neighbours: dict[Cidr, tuple[int, str]] = {}
        self._learnt: dict[tuple[int, str], int] = {}

    def take(self, message: Any) -> None:
        """Follow one rtnetlink message."""
        match message["event"]:
            case "RTM_NEWLINK":
                self._link(message)
            case "RTM_DELLINK" if message["family"] != _BRIDGE:
                self._links.pop(message["index"], None)
                self._forget_routes(message["index"])
            case "RTM_NEWROUTE" | "RTM_DELROUTE":
                self._route(message, gone=message["event"] == "RTM_DELROUTE")
            case "RTM_NEWNEIGH" | "RTM_DELNEIGH" if self._ports:
                self._neighbour(message, gone=message["event"] == "RTM_DELNEIGH")

    def _link(self, message: Any) -> None:
        index, before = message["index"], self._links.get(message["index"])
        info = message.get_attr("IFLA_LINKINFO")
        kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or (before.kind if before else "")
        self._links[index] = _Link(message.get_attr("IFLA_IFNAME") or "", kind, message.get_attr("IFLA_MASTER"))
        if not message["flags"] & _UP:
            # The kernel drops the IPv4 routes of an interface that goes down, and says nothing of it.
            self._forget_routes(index)

    def _forget_routes(self, index: int) -> None:
        for address in [address for address, out in self._routes.items() if out == index]:
            del self._routes[address]
        for key in [key for key, outs in self._gateways.items() if index in outs]:
            del self._gateways[key]

    def _route(self, message: Any, *, gone: bool) -> None:
        if message["type"] != _UNICAST or message.get_attr("RTA_TABLE") == _LOCAL_TABLE:
            return
        out, outs = message.get_attr("RTA_OIF"), _behind_gateways(message)
        if outs:
            attributes = ("RTA_DST", "RTA_TABLE", "RTA_PRIORITY", "RTA_GATEWAY")
            key = (message["family"], message["dst_len"], *(str(message.get_attr(name)) for name in attributes))
            _set(self._gateways, key, None if gone else outs)
            return
        address = _address(message.get_attr("RTA_DST"))
        if address is None or message["dst_len"] != BITS[address.family] or message["proto"] == _BY_KERNEL:
            return
        if gone:
            if self._routes.get(address) == out:
                del self._routes[address]
        elif out is not None:
            self._routes[address] = out

    def _neighbour(self, message: Any, *, gone: bool) -> None:
        lladdr = message.get_attr("NDA_LLADDR")
        if message["family"] == _BRIDGE:
            bridge = message.get_attr("NDA_MASTER")
            if bridge is not None and lladdr:
                _set(self._learnt, (bridge, lladdr), None if gone else message["ifindex"])
        elif (address := _address(message.get_attr("NDA_DST"))) is not None:
            _set(self._neighbours, address, None if gone or not lladdr else (message["ifindex"], lladdr))

    def interfaces(self) -> dict[Cidr, str]:
        """Return the interface of every address that is certainly at one."""
        found: dict[Cidr, str] = {}
        for address, (bridge, lladdr) in self._neighbours.items():
            port = self._links.get(self._learnt.get((bridge, lladdr), 0))
            if port is not None and port.kind in _POD_DEVICES and port.master == bridge:
                found[address] = port.name
        seen = dict(self._seen())
        found.update((address, seen[index]) for address, index in self._routes.items() if index in seen)
        return found

    def devices(self) -> frozenset[str]:
        """Return the interfaces that have a pod at their other end and are seen under their own name."""
        return frozenset(name for _, name in self._seen())

    def _seen(self) -> Iterator[tuple[int, str]]:
        uplinks = frozenset[int]().union(*self._gateways.values())
        for index, link in self._links.items():
            # A device with a master is seen by netfilter under its master's name.
            if link.kind in _POD_DEVICES and (link.master is None or self._ports) and index not in uplinks:
                yield index, link.name


def _behind_gateways(message: Any) -> frozenset[int]:
    """Return the interfaces by which a route leads to gateways."""
    hops = [hop for hop in message.get_attr("RTA_MULTIPATH") or () if hop.get_attr("RTA_GATEWAY") or hop.get_attr("RTA_VIA")]
    if message.get_attr("RTA_GATEWAY") or message.get_attr("RTA_VIA"):
        return frozenset({message.get_attr("RTA_OIF") or 0})
    return frozenset(hop["oif"] for hop in hops)


def _set(table: dict[Any, Any], key: object, value: object) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _address(text: str | None) -> Cidr | None:
    try:
        return Cidr.parse(text) if text else None
    except InvalidProgram:
        return None
