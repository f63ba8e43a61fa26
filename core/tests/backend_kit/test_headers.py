from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyplane.backend_kit.packets import Headers, read_headers
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import IcmpType

PORTS = struct.pack("!HH", 1000, 80) + bytes(4)


def v4(payload: bytes, *, protocol: int = 6, options: bytes = b"", fragment: int = 0) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, words * 4 + len(payload), 0, fragment, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + payload


def v6(payload: bytes, *, protocol: int = 6, extensions: bytes = b"") -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(extensions) + len(payload), protocol, 64)
    return head + (b"\xfd" + bytes(14) + b"\x01") + (b"\xfd" + bytes(14) + b"\x02") + extensions + payload


def read(packet: bytes) -> Headers:
    headers = read_headers(packet)
    assert headers is not None
    assert headers.source in {Cidr.parse("10.0.0.1"), Cidr.parse("fd00::1")}
    assert headers.destination in {Cidr.parse("10.0.0.2"), Cidr.parse("fd00::2")}
    return headers


@pytest.mark.parametrize(
    "packet",
    [
        v4(PORTS),
        v4(PORTS, options=bytes(8)),
        v4(PORTS, fragment=0x2000),
        v6(PORTS),
        v6(PORTS, protocol=0, extensions=bytes([60, 0, *[0] * 6]) + bytes([6, 1, *[0] * 14])),
        v6(PORTS, protocol=51, extensions=bytes([6, 4, *[0] * 22])),
        v6(PORTS, protocol=44, extensions=bytes([6, 0, 0, 1, *[0] * 4])),
    ],
    ids=["v4", "v4 with options", "v4 first fragment", "v6", "two extensions", "authentication", "v6 first fragment"],
)
def test_ports_are_behind_whatever_stands_before_them(packet: bytes) -> None:
    headers = read(packet)
    assert (headers.protocol, headers.ports, headers.icmp, headers.later_fragment) == (6, (1000, 80), None, False)
    assert (headers.payload, headers.length) == (PORTS, 8)
    short = read(packet[:-5])
    assert (short.ports, short.length) == ((0, 0), 8), "how long it is it says itself"


@pytest.mark.parametrize("packet", [v4(PORTS, fragment=1), v6(PORTS, protocol=44, extensions=bytes([6, 0, 0, 8, *[0] * 4]))])
def test_later_fragments_have_no_ports(packet: bytes) -> None:
    headers = read(packet)
    assert (headers.protocol, headers.ports, headers.payload, headers.later_fragment) == (6, (0, 0), b"", True)


def test_types_of_icmp() -> None:
    assert read(v4(bytes([3, 13, 0, 0]), protocol=1)).icmp == IcmpType(3, 13)
    assert read(v6(bytes([1, 1, 0, 0]), protocol=58)).icmp == IcmpType(1, 1)
    assert read(v4(bytes([3, 13, 0, 0]), protocol=47)).icmp is None
    assert read(v4(b"\x08", protocol=1)).icmp is None


@pytest.mark.parametrize("packet", [b"", v4(PORTS)[:19], v6(PORTS)[:39], b"\x44" + v4(PORTS)[1:], b"\x50" + v4(PORTS)[1:]])
def test_what_is_no_packet(packet: bytes) -> None:
    assert read_headers(packet) is None


@given(st.sampled_from([b"", b"\x45", b"\x4f", b"\x60"]), st.binary(max_size=120))
def test_whatever_comes_is_read_or_not(start: bytes, rest: bytes) -> None:
    headers = read_headers(start + rest)
    if headers is not None:
        assert all(0 <= port <= 65535 for port in headers.ports)
        assert headers.icmp is None or headers.protocol in (1, 58)
        assert (start + rest).endswith(headers.payload)
