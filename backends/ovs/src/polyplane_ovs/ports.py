"""`Ports`: what is attached to the bridge, as far as flows depend on it; `Attachment`: where an endpoint is found on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Program
from polyplane_ovs.options import OvsOptions

#: A MAC address of one station, as Open vSwitch writes it.
_MAC: Final = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_NO_MAC: Final = "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One interface on the bridge.

    ``number`` is its OpenFlow port as it stands in a match. ``workload`` is what external_ids say is attached there, empty if
    they say nothing. ``mac`` is the workload's address, None where nobody says. ``trusted``: it leads to the node itself or
    out of it, and may carry anybody's packets.
    """

    name: str
    number: str
    workload: str = ""
    mac: str | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """The port of an endpoint: ``port`` as it stands in a match, and the endpoint's MAC address if it is known.

    ``shared``: another endpoint claims the same port. One of the claims is wrong, and none may take another's policy away, so
    addresses alone tell them apart.
    """

    port: str
    mac: str | None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """All ports of the bridge by name."""

    by_name: Mapping[str, Port] = field(default_factory=dict)
    by_workload: Mapping[str, Port] = field(default_factory=dict)
    by_number: Mapping[str, Port] = field(default_factory=dict)

    @classmethod
    def of(cls, ports: Iterable[Port]) -> Ports:
        """Return the ports; of several for one workload the first by name counts."""
        by_name = {port.name: port for port in sorted(ports, key=lambda port: port.name)}
        by_workload: dict[str, Port] = {}
        for port in by_name.values():
            if port.workload:
                by_workload.setdefault(port.workload, port)
        return cls(by_name, by_workload, {port.number: port for port in by_name.values()})

    @classmethod
    def on_paper(cls, program: Program, options: OvsOptions) -> Ports:
        """Return ports as a program alone lets them be imagined: named, without numbers or MAC addresses."""
        ports = []
        for endpoint in program.endpoints.values():
            name = endpoint.interface or str(endpoint.id)
            ports.append(Port(name=name, number=_quoted(name), workload=options.name_of(endpoint.id)))
        return cls.of(ports)


def usable_mac(text: str | None) -> str | None:
    """Return a MAC address in Open vSwitch's spelling, None for what is none or cannot be a station's."""
    lower = (text or "").strip().strip('"').lower()
    return lower if _MAC.fullmatch(lower) and lower != _NO_MAC else None


def link_local(mac: str) -> str:
    """Return the IPv6 link-local address that a station makes of its MAC address (RFC 4291, appendix A)."""
    parts = [int(part, 16) for part in mac.split(":")]
    words = [0xFE80, 0, 0, 0, (parts[0] ^ 2) << 8 | parts[1], parts[2] << 8 | 0xFF, 0xFE00 | parts[3], parts[4] << 8 | parts[5]]
    value = 0
    for word in words:
        value = value << 16 | word
    return str(Cidr(6, value, 128))


def _quoted(name: str) -> str:
    """Quote a name that a match could not hold as it is."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]+", name) else '"' + re.sub(r"[^A-Za-z0-9_./:@-]", "_", name) + '"'
