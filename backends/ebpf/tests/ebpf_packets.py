"""Packets for the tests of this backend."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ir_programs import HOSTS, PORTS

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.program import IcmpType

STRANGERS = [Cidr.parse("192.0.2.1"), Cidr.parse("2001:db8::1")]


def some_packets(random_: random.Random, count: int) -> Iterator[Packet]:
    for _ in range(count):
        family = random_.choice([4, 6])
        addresses = [host for host in (*HOSTS, *STRANGERS) if host.family == family]
        protocol = random_.choice([1, 6, 6, 17, 58, 132, 47])
        ported = protocol in (6, 17, 132)
        yield Packet(
            source=random_.choice(addresses),
            destination=random_.choice(addresses),
            protocol=protocol,
            source_port=random_.choice(PORTS) if ported else 0,
            port=random_.choice(PORTS) if ported else 0,
            icmp=IcmpType(random_.choice([0, 3, 8, 128]), random_.choice([0, 1])) if protocol in (1, 58) else None,
        )
