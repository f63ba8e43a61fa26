"""`OvsOptions`: what can be set under ``[backend.ovs]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from polyplane.backend_kit.options import is_int, refuse_unknown
from polyplane.errors import ConfigError, InvalidProgram
from polyplane.ir.cidr import Cidr
from polyplane_ovs.owned import LAST_TABLE, TABLES

_WHERE: Final = "[backend.ovs]"
#: A bridge name that is safe in a path; Linux allows 15 characters.
_BRIDGE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LAST_METER: Final = 0xFFFF
_HIGHEST_FIRST_TABLE: Final = LAST_TABLE - TABLES + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OvsOptions:
    """Options of the Open vSwitch backend.

    ``bridge``: the bridge whose ports the pods are. ``run_dir``: where Open vSwitch keeps its sockets. ``first_table``: the
    first of our tables. ``next_table``: the bridge's own table that allowed packets go on to, default the action NORMAL.
    ``zone``: our conntrack zone. ``endpoint_key``, ``endpoint_format``: the key of an interface's external_ids that names its
    pod, and how. ``mac_key``: the key that holds the pod's MAC address. ``uplinks``: ports that lead
    out of the node, besides its internal, tunnel and patch ports. ``service_cidrs``: addresses that the node
    translates; egress towards them is decided when the translated packet comes back to the bridge. ``watch``: follow ports
    and restarts of the switch by ourselves, between two calls of the agent; rejecting and logging need it as well.
    ``tell_denied``: tell observers about denied packets, besides those of log rules. ``meter``: the number of our meter, which
    bounds how many packets the switch tells us of.
    """

    bridge: str = "br-int"
    run_dir: str = "/run/openvswitch"
    first_table: int = 0
    next_table: int | None = None
    zone: int = 65520
    endpoint_key: str = "iface-id"
    endpoint_format: str = "{namespace}/{name}"
    mac_key: str = "attached-mac"
    uplinks: tuple[str, ...] = ()
    service_cidrs: tuple[Cidr, ...] = ()
    watch: bool = True
    tell_denied: bool = False
    meter: int = 20560

    @property
    def database(self) -> str:
        """Where ovsdb-server listens, as the ovs library takes it."""
        return f"unix:{self.run_dir}/db.sock"

    @property
    def management(self) -> str:
        """Path of the socket on which the bridge speaks OpenFlow."""
        return f"{self.run_dir}/{self.bridge}.mgmt"

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> OvsOptions:
        """Check names, types and values.

        :raises ConfigError: naming the key and what it may be
        """
        refuse_unknown(_WHERE, options, [option.name for option in fields(cls)])
        read = _Reader(options)
        made = cls(
            bridge=read.text("bridge", _BRIDGE, "the name of a bridge: up to 15 letters, digits, dots, hyphens and underscores"),
            run_dir=read.text("run_dir", re.compile(r"/.*"), "an absolute path such as /run/openvswitch").rstrip("/"),
            first_table=read.integer("first_table", 0, _HIGHEST_FIRST_TABLE, f"we need {TABLES} tables"),
            next_table=read.integer("next_table", 0, LAST_TABLE, "a table of the bridge's own pipeline")
            if "next_table" in options
            else None,
            zone=read.integer("zone", 1, 65535, "a conntrack zone that nobody else uses"),
            endpoint_key=read.text("endpoint_key", _KEY, "a key of external_ids"),
            endpoint_format=read.text("endpoint_format", _FORMAT, "text with {namespace} and {name} in it"),
            mac_key=read.text("mac_key", _KEY, "a key of external_ids"),
            uplinks=read.names("uplinks"),
            service_cidrs=read.prefixes("service_cidrs"),
            watch=read.flag("watch"),
            tell_denied=read.flag("tell_denied"),
            meter=read.integer("meter", 1, _LAST_METER, "a meter that nobody else uses"),
        )
        if made.next_table is not None and made.first_table <= made.next_table < made.first_table + TABLES:
            raise ConfigError(
                f"{_WHERE} next_table: {made.next_table} is one of our own tables, {made.first_table} to {made.first_table + TABLES - 1}; "
                f"give a table of the bridge's pipeline, or another first_table"
            )
        return made

    def name_of(self, endpoint_id: str) -> str:
        """Return what external_ids call an endpoint."""
        namespace, _, name = endpoint_id.partition("/")
        return self.endpoint_format.replace("{namespace}", namespace).replace("{name}", name)


_FORMAT: Final = re.compile(r"[^{}]*(\{namespace\}[^{}]*\{name\}|\{name\}[^{}]*\{namespace\})[^{}]*")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads typed values; one that is not given has its default."""

    options: Mapping[str, object]

    def _get(self, key: str) -> object:
        return self.options.get(key, getattr(OvsOptions(), key))

    def text(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ConfigError(f"{_WHERE} {key}: {value!r} is not {what}")
        return value

    def integer(self, key: str, first: int, last: int, why: str) -> int:
        value = self._get(key)
        if not (is_int(value) and first <= value <= last):
            raise ConfigError(f"{_WHERE} {key}: {value!r} is not a number from {first} to {last} ({why})")
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise ConfigError(f"{_WHERE} {key}: {value!r} is neither true nor false")
        return value

    def _list(self, key: str) -> object:
        """Return a list; on a command line it is text with commas."""
        value = self._get(key)
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    def names(self, key: str) -> tuple[str, ...]:
        value = self._list(key)
        if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
            raise ConfigError(f'{_WHERE} {key}: {value!r} is no list of ports such as ["eth1"]')
        return tuple(sorted(set(value)))

    def prefixes(self, key: str) -> tuple[Cidr, ...]:
        value = self._list(key)
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{_WHERE} {key}: {value!r} is no list of prefixes such as ["10.96.0.0/12"]')
        try:
            return tuple(sorted({entry if isinstance(entry, Cidr) else Cidr.parse(str(entry)) for entry in value}))
        except InvalidProgram as error:
            raise ConfigError(f"{_WHERE} {key}: {error}") from error
