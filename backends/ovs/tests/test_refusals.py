"""What refused senders are told, read back with scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from polyplane_ovs.refusals import refusal

HERE, THERE = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
V4 = IP(src="10.0.0.1", dst="10.0.0.2")
V6 = IPv6(src="fd00::1", dst="fd00::2")


def answer(packet: Packet, told: int = 192) -> Packet | None:
    """Refuse a packet of which so many bytes are known; return what goes back, with good checksums."""
    said = refusal(bytes(Ether(src=HERE, dst=THERE) / packet)[:told])
    if said is None:
        return None
    frame = Ether(said)
    again = Ether(said)
    for layer in (IP, TCP, ICMP, ICMPv6DestUnreach):
        if layer in again:
            for name in ("chksum", "cksum"):
                if name in again[layer].fields:
                    del again[layer].fields[name]
    assert bytes(again) == said, "a checksum or a length is wrong"
    assert (frame.src, frame.dst) == (THERE, HERE)
    inner = frame.payload
    assert (inner.src, inner.dst) == (packet.dst, packet.src)
    return inner


@pytest.mark.parametrize("network", [V4, V6], ids=["v4", "v6"])
def test_tcp_is_reset(network: Packet) -> None:
    opened = answer(network / TCP(sport=1000, dport=80, seq=7, flags="S"))
    assert opened is not None
    assert (opened[TCP].sport, opened[TCP].dport, opened[TCP].flags) == (80, 1000, "RA")
    assert (opened[TCP].seq, opened[TCP].ack) == (0, 8)
    running = answer(network / TCP(sport=1000, dport=80, seq=7, ack=9, flags="PA") / Raw(b"x" * 1000))
    assert running is not None
    assert (running[TCP].seq, running[TCP].ack, running[TCP].flags) == (9, 0, "R")
    lonely = answer(network / TCP(sport=1000, dport=80, seq=0xFFFFFFFF, flags="F") / Raw(b"x" * 1000))
    assert lonely is not None
    assert (lonely[TCP].ack, lonely[TCP].flags) == (1000, "RA")
    assert answer(network / TCP(flags="R")) is None


def test_extension_headers_hide_nothing() -> None:
    hidden = V6 / IPv6ExtHdrHopByHop()
    reset = answer(hidden / TCP(sport=1000, dport=80, seq=7, flags="S"))
    assert reset is not None
    assert (reset[TCP].dport, reset[TCP].ack, reset[TCP].flags) == (1000, 8, "RA")
    assert answer(hidden / UDP(sport=5, dport=53)) is not None
    assert answer(hidden / ICMPv6DestUnreach() / V6) is None


def test_others_are_told_that_it_is_prohibited() -> None:
    for asked in (UDP(sport=5, dport=53), SCTP(sport=5, dport=9), ICMP(type=8), Raw(b"")):
        said = answer(V4 / asked)
        assert said is not None
        assert (said[ICMP].type, said[ICMP].code) == (3, 13)
    long = V4 / UDP(sport=5, dport=53) / Raw(b"x" * 5000)
    quoted = answer(long)
    assert quoted is not None
    assert bytes(quoted).endswith(bytes(long)[:178])  # all that we were told
    for asked in (UDP(sport=5, dport=53), ICMPv6EchoRequest()):
        six = answer(V6 / asked)
        assert six is not None
        assert (six[ICMPv6DestUnreach].type, six[ICMPv6DestUnreach].code) == (1, 1)


@pytest.mark.parametrize(
    "packet",
    [
        V4 / ICMP(type=3, code=1) / V4,
        V4 / ICMP(type=11) / V4,
        V6 / ICMPv6DestUnreach() / V6,
        IP(src="0.0.0.0", dst="10.0.0.2") / UDP(),  # noqa: S104 (nobody's address, not everybody's)
        IP(src="10.0.0.1", dst="224.0.0.5") / UDP(),
        IP(src="10.0.0.1", dst="255.255.255.255") / UDP(),
        IPv6(src="::", dst="fd00::2") / UDP(),
        IPv6(src="fd00::1", dst="ff02::1") / UDP(),
        IP(src="10.0.0.1", dst="10.0.0.2", frag=5) / UDP(),
        ARP(),
    ],
    ids=lambda packet: packet.summary(),
)
def test_nobody_answers_errors_groups_and_fragments(packet: Packet) -> None:
    assert refusal(bytes(Ether(src=HERE, dst=THERE) / packet)) is None


@given(st.sampled_from([0x0800, 0x86DD, 0x0806]), st.binary(max_size=80))
def test_whatever_comes_nothing_breaks(kind: int, rest: bytes) -> None:
    refusal(b"\x02" * 12 + kind.to_bytes(2, "big") + rest)
    refusal(rest)
