from __future__ import annotations

import ipaddress
import struct

import pytest

from polyplane_conformance.probe import icmp, sctp, wire
from polyplane_conformance.probe.model import Traffic


def test_crc32c_of_the_published_vector() -> None:
    assert sctp.crc32c(b"123456789") == 0xE306_9283  # RFC 3720, appendix B.4, and every catalogue of CRCs


def test_sctp_packets_come_back_as_they_went() -> None:
    ask = sctp.SctpPacket(40000, 80, 0, sctp.INIT, initiate_tag=77)
    answer = sctp.SctpPacket(80, 40000, 77, sctp.INIT_ACK, initiate_tag=1, cookie=b"x/a")
    abort = sctp.SctpPacket(80, 40000, 77, sctp.ABORT)
    for packet in (ask, answer, abort):
        data = packet.encode()
        assert len(data) % 4 == 0
        assert sctp.decode(data) == packet
    assert sctp.decode(ask.encode()[:15]) is None
    assert sctp.decode(ask.encode()[:20]) is None


def test_an_echo_request_has_a_valid_checksum() -> None:
    message = icmp.echo_request(4, 1000, 1, 77)
    total = sum(struct.unpack(f"!{(len(message) + 1) // 2}H", message + bytes(len(message) % 2)))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert icmp.decode(4, bytes([0]) + message[1:], "10.0.0.1") == icmp.EchoReply(1000, 77)
    assert icmp.decode(4, bytes([0]) + message[1:20], "10.0.0.1") == icmp.EchoReply(1000, None)


@pytest.mark.parametrize(
    ("family", "code", "protocol", "payload", "refused", "key"),
    [
        (4, 13, 6, struct.pack("!HHI", 5555, 80, 0), True, 5555),
        (4, 1, 17, struct.pack("!HHI", 5555, 80, 0), False, 5555),
        (4, 10, 1, struct.pack("!BBHHH", 8, 0, 0, 99, 1), True, 99),
        (4, 2, 253, wire.datagram(wire.ASK, 123456), True, 123456),
        (6, 1, 132, struct.pack("!HHI", 5555, 80, 0), True, 5555),
        (6, 0, 6, struct.pack("!HHI", 5555, 80, 0), False, 5555),
        (6, 4, 58, struct.pack("!BBHHH", 128, 0, 0, 99, 1), True, 99),
    ],
)
def test_icmp_errors_name_the_packet_they_are_about(
    family: int, code: int, protocol: int, payload: bytes, *, refused: bool, key: int
) -> None:
    if family == 4:
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, protocol, 0, bytes(4), bytes(4))
    else:
        header = struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, 64, bytes(16), ipaddress.ip_address("fd00::1").packed)
    message = struct.pack("!BBHI", 3 if family == 4 else 1, code, 0, 0) + header + payload
    error = icmp.decode(family, message, "fe80::1%eth0" if family == 6 else "10.0.0.1")
    assert isinstance(error, icmp.IcmpError)
    assert (error.refused, error.protocol, error.key) == (refused, protocol, key)
    assert icmp.decode(family, message[:20], "10.0.0.1") is None


def test_traffic_reads_what_it_writes() -> None:
    for text in ("tcp/80", "udp/53", "sctp/3868", "icmp", "ip-253"):
        for family in (4, 6):
            assert Traffic.parse(text, family).name == text
    for text in ("tcp", "tcp/", "icmp/3", "80", "ip-x", "tcp/70000"):
        with pytest.raises(ValueError, match=r"traffic|port"):
            Traffic.parse(text)


def test_messages_survive_being_cut_anywhere() -> None:
    data = wire.encode({"id": 1}) + wire.encode({"id": 2, "text": "a\nb"})
    lines = wire.Lines()
    assert [message for byte in data for message in lines.feed(bytes([byte]))] == [{"id": 1}, {"id": 2, "text": "a\nb"}]
