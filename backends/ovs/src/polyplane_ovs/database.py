"""`Database`: the part of Open vSwitch's configuration that flows depend on, followed over one connection to ovsdb-server.

The ``monitor`` of RFC 7047 gives every row once and then what changes. An ``echo`` sent before reading makes the copy current:
the server answers in order, so whatever it had to tell before is there when the answer comes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import ovs.jsonrpc
import ovs.poller
import ovs.stream

from polyplane_ovs.options import OvsOptions
from polyplane_ovs.ports import Port, Ports, usable_mac

_COLUMNS: Final = {
    "Open_vSwitch": ("ovs_version",),
    "Bridge": ("name", "ports", "fail_mode", "datapath_type"),
    "Port": ("name", "interfaces"),
    "Interface": ("name", "type", "ofport", "external_ids"),
}
#: Seconds that ovsdb-server may take to answer; it takes a millisecond.
_TIMEOUT: Final = 5.0
#: Interface types that lead to the node itself, to another bridge, or through a tunnel to another node.
_OF_THE_NODE: Final = frozenset(
    {"internal", "patch", "geneve", "vxlan", "gre", "ip6gre", "erspan", "ip6erspan", "lisp", "stt", "gtpu", "bareudp", "srv6"}
)


class DatabaseError(Exception):
    """ovsdb-server does not answer as it should; the text has the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A bridge as it is configured."""

    fail_mode: str
    datapath_type: str
    ports: Ports


class Database:
    """A copy of the rows we need. Not for several threads at once."""

    def __init__(self, options: OvsOptions) -> None:
        self._options: Final = options
        self._connection: Any = None
        self._rows: dict[str, dict[str, Mapping[str, Any]]] = {}

    def close(self) -> None:
        """Give the connection up; the next call makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def descriptor(self) -> int | None:
        """What to poll for news, None while there is no connection."""
        return None if self._connection is None else int(self._connection.stream.socket.fileno())

    @property
    def version(self) -> str:
        """Version of the Open vSwitch that runs, as far as it says."""
        return next(
            (str(row["ovs_version"]) for row in self._rows.get("Open_vSwitch", {}).values() if isinstance(row["ovs_version"], str)), ""
        )

    def bridge(self) -> Bridge | None:
        """Return our bridge as it is now, None if there is none.

        :raises DatabaseError: ovsdb-server cannot be reached or does not answer
        """
        if self._connection is None:
            self._connect()
        else:
            self._request("echo", [])
        row = next((row for row in self._rows["Bridge"].values() if row["name"] == self._options.bridge), None)
        if row is None:
            return None
        ports = [self._rows["Port"][uuid] for uuid in _set(row["ports"]) if uuid in self._rows["Port"]]
        interfaces = [self._rows["Interface"].get(uuid) for port in ports for uuid in _set(port["interfaces"])]
        return Bridge(
            fail_mode=next(iter(_set(row["fail_mode"])), ""),
            datapath_type=row["datapath_type"] or "system",
            ports=Ports.of(self._ports(interface for interface in interfaces if interface is not None)),
        )

    def _ports(self, interfaces: Iterable[Mapping[str, Any]]) -> Iterable[Port]:
        for interface in interfaces:
            number = next(iter(_set(interface["ofport"])), -1)
            if not isinstance(number, int) or number < 1:
                continue  # not there (yet), or it cannot be: the switch says why in the column "error"
            ids = dict(interface["external_ids"][1])
            workload = str(ids.get(self._options.endpoint_key, ""))
            name = str(interface["name"])
            yield Port(
                name=name,
                number="LOCAL" if number == _LOCAL else str(number),
                workload=workload,
                mac=usable_mac(ids.get(self._options.mac_key)),
                trusted=not workload and (interface["type"] in _OF_THE_NODE or name in self._options.uplinks),
            )

    # --- the connection ---

    def _connect(self) -> None:
        where = self._options.database
        error, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(where), int(_TIMEOUT * 1000))
        if error:
            raise DatabaseError(
                f"ovsdb-server does not answer at {where} ({os.strerror(error)}): start it, or correct the option run_dir; "
                f"without it Open vSwitch forwards nothing"
            )
        self._connection = ovs.jsonrpc.Connection(stream)
        self._rows = {table: {} for table in _COLUMNS}
        self._update(
            self._request("monitor", ["Open_vSwitch", None, {table: {"columns": list(columns)} for table, columns in _COLUMNS.items()}])
        )

    def _request(self, method: str, params: list[Any]) -> Any:
        """Ask, and take in what comes before the answer.

        :raises DatabaseError: the connection is lost, or no answer comes in time
        """
        connection = self._connection
        message = ovs.jsonrpc.Message.create_request(method, params)
        deadline = time.monotonic() + _TIMEOUT
        error = connection.send(message)
        while not error:
            error, reply = connection.recv()
            if error == errno.EAGAIN:
                if time.monotonic() > deadline:
                    error = errno.ETIMEDOUT
                    break
                error = 0
                connection.run()
                poller = ovs.poller.Poller()
                connection.wait(poller)
                connection.recv_wait(poller)
                poller.timer_wait(100)
                poller.block()
            elif reply is not None:
                if reply.id == message.id and reply.type in (ovs.jsonrpc.Message.T_REPLY, ovs.jsonrpc.Message.T_ERROR):
                    if reply.error is not None:
                        self.close()
                        raise DatabaseError(f"ovsdb-server at {self._options.database} refuses {method}: {reply.error}")
                    return reply.result
                self._take(reply)
        self.close()
        why = "closed the connection" if error < 0 else os.strerror(error)
        raise DatabaseError(f"ovsdb-server at {self._options.database} is lost ({why}): start it; without it Open vSwitch forwards nothing")

    def _take(self, message: Any) -> None:
        if message.type == ovs.jsonrpc.Message.T_REQUEST and message.method == "echo":
            self._connection.send(ovs.jsonrpc.Message.create_reply(message.params, message.id))
        elif message.type == ovs.jsonrpc.Message.T_NOTIFY and message.method == "update":
            self._update(message.params[1])

    def _update(self, tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        for table, rows in tables.items():
            for uuid, change in rows.items():
                if "new" in change:
                    self._rows[table][uuid] = change["new"]
                else:
                    self._rows[table].pop(uuid, None)


#: The number of the bridge's own port.
_LOCAL: Final = 0xFFFE


def _set(value: Any) -> list[Any]:
    """Return the atoms of a column that may hold several: ``["set", [...]]``, or one atom by itself."""
    atoms = value[1] if isinstance(value, list) and value[:1] == ["set"] else [value]
    return [atom[1] if isinstance(atom, list) else atom for atom in atoms]
