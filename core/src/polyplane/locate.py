"""Where pods are attached: from the address of a pod to the interface on the node's side, by the kernel's own tables.

A host route without a gateway to a veth, netkit or tun device names the interface (Calico, the ptp plugin, kindnet, the cloud
providers' own). A pod on a bridge has no interface of its own in the eyes of netfilter, which sees the bridge: such a pod goes
by its address, unless the backend sits at the bridge's ports and asks for them. Then neighbours and the forwarding database
name the port. What is not certain is not said: a pod at the wrong interface would have no policy.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

import structlog

from polyplane.errors import InvalidProgram
from polyplane.ir.cidr import BITS, Cidr

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.locate")

#: Kinds of devices that have a pod, and nothing else, at their other end.
_POD_DEVICES: Final = frozenset({"veth", "netkit", "tun"})
_UNICAST: Final = 1  # RTN_UNICAST of linux/rtnetlink.h
_LOCAL_TABLE: Final = 255  # RT_TABLE_LOCAL
_UP: Final = 1  # IFF_UP of linux/if.h
_BRIDGE: Final = 7  # AF_BRIDGE
#: Bytes that the kernel may queue for us: a node that starts has hundreds of pods at once.
_BUFFER: Final = 4 << 20


class _Link(NamedTuple):
    name: str
    kind: str
    master: int | None


class Tables:
    """Links, host routes, neighbours and bridge ports, followed message by message. Pure: knows nothing of sockets."""

    def __init__(self, *, ports: bool = False) -> None:
        self._ports = ports
        self._links: dict[int, _Link] = {}
        self._routes: dict[Cidr, int] = {}
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

    def _route(self, message: Any, *, gone: bool) -> None:
        address = _address(message.get_attr("RTA_DST"))
        if address is None or message["dst_len"] != BITS[address.family] or message.get_attr("RTA_TABLE") == _LOCAL_TABLE:
            return
        out = message.get_attr("RTA_OIF")
        if gone:
            if self._routes.get(address) == out:
                del self._routes[address]
        elif message["type"] == _UNICAST and out is not None and message.get_attr("RTA_GATEWAY") is None:
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
        for address, index in self._routes.items():
            link = self._links.get(index)
            # A device with a master is seen by netfilter under its master's name.
            if link is not None and link.kind in _POD_DEVICES and (link.master is None or self._ports):
                found[address] = link.name
        return found


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


class Locator:
    """Follows the kernel's tables in a thread and tells whenever the interfaces have changed. A context manager."""

    def __init__(self, tell: Callable[[Mapping[Cidr, str]], None], *, ports: bool = False) -> None:
        """Prepare; ``tell`` is called from the thread, first with what there is."""
        self._tell = tell
        self._with_ports = ports
        self._stopping = False
        self._socket: Any = None
        self._told: dict[Cidr, str] | None = None
        #: Set once ``tell`` has been called.
        self.known: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to follow, in the network namespace of the calling thread."""
        self._thread = threading.Thread(target=self._run, name="polyplane-locate", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with contextlib.suppress(Exception):  # it may be in any state
            self._socket.close()
        if self._thread is not None:
            self._thread.join(2)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  # pyroute2 raises what it likes; losing messages means reading anew
                if not self._stopping:
                    _log.info("routes are read again", error=f"{type(error).__name__}: {error}")
                    threading.Event().wait(1)

    def _follow(self) -> None:
        """Read all tables, then follow the changes, until the socket fails or is closed."""
        # Imported here because it takes more than half a second, which only a starting agent should have to wait.
        from pyroute2 import IPRoute  # noqa: PLC0415
        from pyroute2.netlink import rtnl  # noqa: PLC0415

        groups = rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE | (rtnl.RTMGRP_NEIGH if self._with_ports else 0)
        tables = Tables(ports=self._with_ports)
        with IPRoute(rcvbuf=_BUFFER) as changes:
            self._socket = changes
            changes.bind(groups)
            with IPRoute() as now:
                self._take(tables, now.get_links())
                self._take(tables, now.get_routes())
                if self._with_ports:
                    self._take(tables, now.get_neighbours())
                    self._take(tables, now.fdb("dump"))
            self._say(tables)
            while not self._stopping:
                self._take(tables, changes.get())
                self._say(tables)

    @staticmethod
    def _take(tables: Tables, messages: Iterable[Any]) -> None:
        for message in messages:
            tables.take(message)

    def _say(self, tables: Tables) -> None:
        found = tables.interfaces()
        if found != self._told:
            self._told = found
            self._tell(found)
            self.known.set()
