"""`KernelWay`: the kernel's routes, links, neighbours and bridge ports, by rtnetlink."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from typing import Any, Final

from polyplane.locate.tables import Tables
from polyplane.locate.way import Found, Way

#: Bytes that the kernel may queue for us: a node that starts has hundreds of pods at once.
_BUFFER: Final = 4 << 20
#: Longer than any message of the kernel's (netlink(7) asks for at least 8 kB).
_LONGEST: Final = 1 << 16
_ROUTE_FAMILY: Final = 0  # NETLINK_ROUTE
_SO_RCVBUFFORCE: Final = 33  # of asm-generic/socket.h; without CAP_NET_ADMIN the system's limit holds


class KernelWay(Way):
    """Finds interfaces by address.

    :param routes: whether host routes name interfaces; without, the way only tells which devices there are
    :param ports: whether ports of bridges are seen, too
    """

    name = "kernel"

    def __init__(self, *, routes: bool = True, ports: bool = False) -> None:
        super().__init__()
        self._routes = routes
        self._ports = ports

    def _follow(self) -> None:
        # Imported here because it takes more than half a second, which only a starting agent should have to wait.
        from pyroute2 import IPRoute  # noqa: PLC0415
        from pyroute2.netlink import rtnl  # noqa: PLC0415
        from pyroute2.netlink.rtnl.marshal import MarshalRtnl  # noqa: PLC0415

        groups = rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE | (rtnl.RTMGRP_NEIGH if self._ports else 0)
        tables = Tables(ports=self._ports)
        marshal = MarshalRtnl()
        # A plain socket for the changes, because one of pyroute2 cannot be interrupted by another thread without leaking its loop.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE_FAMILY) as changes:
            try:
                changes.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                changes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            changes.bind((0, groups))
            with IPRoute() as now:
                _take(tables, now.get_links())
                _take(tables, now.get_routes())
                if self._ports:
                    _take(tables, now.get_neighbours())
                    _take(tables, now.fdb("dump"))
            self._tell(tables)
            waiting = select.poll()  # unlike select() at home with many descriptors
            waiting.register(changes, select.POLLIN)
            waiting.register(self._woken, select.POLLIN)
            while not self._stopping.is_set():
                if changes.fileno() in dict(waiting.poll()):
                    # ENOBUFS, when messages were lost, ends this: everything is read again.
                    _take(tables, marshal.parse(changes.recv(_LONGEST)))
                    self._tell(tables)

    def _tell(self, tables: Tables) -> None:
        self._say(Found(interfaces=tables.interfaces() if self._routes else {}, devices=tables.devices()))


def _take(tables: Tables, messages: Iterable[Any]) -> None:
    for message in messages:
        tables.take(message)
