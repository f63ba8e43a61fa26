"""`OvsdbWay`: the interfaces of Open vSwitch, whose ``external_ids`` name the pods they were made for.

Every network plugin has keys of its own; those of OVN-Kubernetes, Antrea and Kube-OVN are understood, and plain
``iface-id=namespace/name``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from polyplane.compile.places import Place
from polyplane.errors import InvalidProgram, PolyplaneError
from polyplane.ir.cidr import Cidr
from polyplane.locate.way import Found, Way

#: Where Open vSwitch has its sockets unless it was told otherwise.
RUN_DIRECTORY: Final = "/run/openvswitch"
#: Keys of a pod's namespace and name: Antrea's, then Kube-OVN's.
_NAMES: Final = (("pod-namespace", "pod-name"), ("pod_namespace", "pod_name"))
#: Keys of a pod's addresses: OVN-Kubernetes', Antrea's, Kube-OVN's.
_ADDRESSES: Final = ("ip_addresses", "ip-address", "ip")
#: Milliseconds between looks whether to stop.
_TICK: Final = 500
#: The part of the database's schema that is asked for.
_SCHEMA: Final = {
    "name": "Open_vSwitch",
    "version": "8.0.0",
    "tables": {
        "Interface": {
            "columns": {
                "name": {"type": "string"},
                "external_ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            }
        }
    },
}


def pod_of(ids: Mapping[str, str]) -> str | None:
    """Return ``namespace/name`` of the pod that an interface's ``external_ids`` name, None if they name none."""
    for namespace_key, name_key in _NAMES:
        if ids.get(namespace_key) and ids.get(name_key):
            return f"{ids[namespace_key]}/{ids[name_key]}"
    # Neither a slash nor an underscore may be in a name of Kubernetes.
    for separator in "/_":
        namespace, found, name = ids.get("iface-id", "").partition(separator)
        if found and namespace and name and not re.search(r"[/_]", name):
            return f"{namespace}/{name}"
    return None


def addresses_of(ids: Mapping[str, str]) -> tuple[Cidr, ...]:
    """Return the addresses that an interface's ``external_ids`` give the pod."""
    found = set()
    for text in re.split(r"[,\s]+", next((ids[key] for key in _ADDRESSES if ids.get(key)), "")):
        try:
            found.add(Cidr.parse(text.partition("/")[0]))
        except InvalidProgram:
            continue
    return tuple(sorted(found))


class OvsdbWay(Way):
    """Finds pods by name, with their ports.

    :param remote: of the database server, as Open vSwitch's tools write it: ``unix:PATH`` or ``tcp:ADDRESS:PORT``
    """

    name = "ovsdb"

    def __init__(self, remote: str) -> None:
        super().__init__()
        self._remote = remote

    def _follow(self) -> None:
        # Imported here because only nodes with Open vSwitch have it.
        try:
            from ovs.db import idl  # noqa: PLC0415
            from ovs.poller import Poller  # noqa: PLC0415
        except ImportError as error:
            raise PolyplaneError(f"{error}; install the distribution ovs, or leave ovsdb out of locate") from error
        helper = idl.SchemaHelper(schema_json=_SCHEMA)
        helper.register_columns("Interface", ["name", "external_ids"])
        database = idl.Idl(self._remote, helper)
        try:
            seen = database.change_seqno
            while not self._stopping.is_set():
                database.run()
                if database.change_seqno != seen:
                    seen = database.change_seqno
                    self._say(_found(database.tables["Interface"].rows.values()))
                    continue
                poller = Poller()
                database.wait(poller)
                poller.timer_wait(_TICK)
                poller.block()
        finally:
            database.close()


def _found(rows: Any) -> Found:
    pods: dict[str, Place] = {}
    names = set()
    for row in sorted(rows, key=lambda row: str(row.name)):
        ids = {str(key): str(value) for key, value in row.external_ids.items()}
        names.add(str(row.name))
        if (pod := pod_of(ids)) is not None:
            # Two ports with one pod's name: one of them is wrong, and which is not certain.
            pods[pod] = Place(None if pod in pods else str(row.name), addresses_of(ids))
    return Found(pods=pods, devices=frozenset(names))
