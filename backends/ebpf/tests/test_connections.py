"""What the program remembers: answers, connections whose policy changed, what cannot be read, what the node itself opens."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from ebpf_bench import ACK, FIN, RST, SYN, Bench, ethernet, frame_of, network, transport
from ebpf_cases import CLIENT, CLIENT6, DNS, ECHO, ISOLATION, NODE, SERVER, SERVER6, WEB, made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.program import (
    EMPTY,
    DenyAction,
    Direction,
    EndpointId,
    Established,
    IcmpType,
    Match,
    Options,
)
from polyplane_ebpf import syscall
from polyplane_ebpf.encode import Settings
from polyplane_ebpf.events import Events
from polyplane_ebpf.kernel import REFUSE
from polyplane_ebpf.maps import SPECS, EventKind, Hook
from polyplane_ebpf.syscall import Run

pytestmark = pytest.mark.needs("root")

THERE = Packet(source=CLIENT, destination=SERVER, protocol=6, source_port=40000, port=80)
#: What a program of traffic control says: others may decide; the packet goes elsewhere.
NEXT, REDIRECT = 0xFFFFFFFF, 7
ASKED = Packet(source=CLIENT, destination=SERVER, protocol=17, source_port=40000, port=53)


def back(packet: Packet) -> Packet:
    return replace(packet, source=packet.destination, destination=packet.source, source_port=packet.port, port=packet.source_port)


@pytest.fixture(scope="module")
def one() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


@pytest.fixture
def bench(one: Bench) -> Bench:
    one.bring(EMPTY)
    one.forget()
    return one


def test_answers_need_no_permission(bench: Bench) -> None:
    isolated = made(WEB)
    client = isolated.endpoints[EndpointId("x/client")]
    closed = replace(client, ingress=made().endpoints[EndpointId("x/server")].ingress)
    bench.bring(replace(isolated, endpoints={**isolated.endpoints, client.id: closed}, policies={**isolated.policies, **made().policies}))
    assert not bench.ask(frame_of(back(THERE), flags=SYN | ACK)), "nobody asked"
    assert bench.ask(frame_of(THERE))
    assert bench.ask(frame_of(back(THERE), flags=SYN | ACK))
    assert not bench.ask(frame_of(replace(back(THERE), port=40001), flags=SYN | ACK))


@pytest.mark.parametrize("packet", [THERE, ASKED], ids=["tcp", "udp"])
def test_a_connection_that_is_no_longer_allowed_is_cut_both_ways(bench: Bench, packet: Packet) -> None:
    bench.bring(made(WEB, DNS))
    assert bench.ask(frame_of(packet))
    assert bench.ask(frame_of(back(packet), flags=ACK))
    bench.bring(made())
    assert not bench.ask(frame_of(back(packet), flags=ACK)), "the server speaks first"
    assert not bench.ask(frame_of(packet, flags=ACK)), "and must not have opened it the other way round"
    assert not bench.ask(frame_of(back(packet), flags=ACK))
    bench.bring(made(WEB, DNS))
    assert bench.ask(frame_of(packet, flags=ACK)), "it goes on where it is allowed again"


def test_in_the_middle_of_an_unknown_connection_both_ways_must_be_allowed(bench: Bench) -> None:
    bench.bring(made())
    assert not bench.ask(frame_of(back(THERE), flags=ACK)), "this may be the answer in a connection that the server does not admit"
    assert not bench.ask(frame_of(THERE, flags=ACK))
    bench.bring(made(Match()))
    assert bench.ask(frame_of(back(THERE), flags=ACK))


def test_kept_connections_stay_until_they_begin_anew(bench: Bench) -> None:
    keep = Options(established=Established.KEEP)
    bench.bring(made(WEB, options=keep))
    assert bench.ask(frame_of(THERE))
    bench.bring(made(options=keep))
    assert bench.ask(frame_of(THERE, flags=ACK))
    assert bench.ask(frame_of(back(THERE), flags=ACK))
    assert not bench.ask(frame_of(THERE)), "a new connection of the same ports"


def test_echo_and_its_answer(bench: Bench) -> None:
    bench.bring(made(ECHO))
    ping = Packet(source=CLIENT, destination=SERVER, protocol=1, icmp=IcmpType(8, 0))
    pong = Packet(source=CLIENT, destination=SERVER, protocol=1, icmp=IcmpType(0, 0))
    assert not bench.ask(frame_of(pong)), "an answer that nobody asked for is what it is: a type that is not admitted"
    assert bench.ask(frame_of(ping))
    assert bench.ask(frame_of(replace(pong, source=SERVER, destination=CLIENT)))
    bench.bring(made())
    assert not bench.ask(frame_of(replace(pong, source=SERVER, destination=CLIENT)))


@pytest.mark.parametrize("family", [4, 6])
def test_errors_about_allowed_connections_pass(bench: Bench, family: int) -> None:
    client, server = (CLIENT, SERVER) if family == 4 else (CLIENT6, SERVER6)
    asked = Packet(source=server, destination=client, protocol=17, source_port=40000, port=53)
    quoted = frame_of(asked)[14:]
    kind, number = (3, 1) if family == 4 else (1, 58)
    error = ethernet(family) + network(client, server, number, struct.pack("!BBHI", kind, 3 if family == 4 else 4, 0, 0) + quoted)
    bench.bring(made())
    assert not bench.ask(error), "about nothing that is known"
    assert bench.ask(frame_of(asked))
    assert bench.ask(error)


def test_neighbour_discovery_passes(bench: Bench) -> None:
    bench.bring(made())
    for kind in range(133, 138):
        assert bench.passes(Packet(source=CLIENT6, destination=SERVER6, protocol=58, icmp=IcmpType(kind, 0)))
    assert not bench.passes(Packet(source=CLIENT6, destination=SERVER6, protocol=58, icmp=IcmpType(128, 0)))


def test_extension_headers_and_options_hide_nothing(bench: Bench) -> None:
    bench.bring(made(WEB))
    there6 = replace(THERE, source=CLIENT6, destination=SERVER6)
    hop, routing, whole = (bytes([next_, 0, *bytes(6)]) for next_ in (43, 60, 6))
    chain = hop + routing + whole
    for port, expected in ((80, True), (81, False)):
        bench.forget()
        assert bench.ask(frame_of(replace(there6, port=port), extensions=chain, first=0)) is expected
        bench.forget()
        assert bench.ask(frame_of(replace(THERE, port=port), extensions=bytes([1] * 8))) is expected
    authentication = bytes([6, 4, 0, 0]) + bytes(20)
    assert bench.ask(frame_of(there6, extensions=authentication, first=51))
    atomic = bytes([6, 0, 0, 0, 0, 0, 0, 1])
    assert bench.ask(frame_of(there6, extensions=atomic, first=44))
    assert not bench.ask(frame_of(there6, extensions=bytes([0, 0, *bytes(6)]) * 9, first=0)), "without an end"


def test_what_the_node_opens_is_answered(bench: Bench) -> None:
    shut = made()
    server = shut.endpoints[EndpointId("x/server")]
    tiers = tuple(replace(tier, policies=()) for tier in server.ingress)
    bench.bring(replace(shut, endpoints={server.id: replace(server, egress=tiers)}))
    probe = replace(THERE, source=Cidr.parse("192.0.2.77"))
    assert not bench.ask(frame_of(back(probe), flags=SYN | ACK), hook=Hook.LOCAL_IN)
    assert bench.ask(frame_of(probe), hook=Hook.POST_ROUTING, function="polyplane_origin")
    assert bench.ask(frame_of(back(probe), flags=SYN | ACK), hook=Hook.LOCAL_IN)
    assert not bench.ask(frame_of(back(probe)), hook=Hook.LOCAL_IN), "the pod itself may open nothing"


def test_counters_and_events(bench: Bench) -> None:
    bench.bring(made(WEB, log=7))
    before = bench.kernel.counters()
    with Events(bench.kernel.descriptor("events"), SPECS["events"].entries) as events:
        list(events.pending())
        assert bench.ask(frame_of(THERE))
        assert not bench.ask(frame_of(replace(THERE, port=81)))
        logged, again, denied = events.pending()
    after = bench.kernel.counters()
    assert {rule: after[rule][0] - before.get(rule, (0, 0))[0] for rule in (1, 7, ISOLATION)} == {1: 1, 7: 2, ISOLATION: 1}
    assert (logged.kind, again.kind, denied.kind) == (EventKind.LOG, EventKind.LOG, EventKind.DENY)
    assert (denied.rule_id, denied.source, denied.destination, denied.port, denied.protocol) == (ISOLATION, CLIENT, SERVER, 81, 6)
    assert denied.direction is Direction.INGRESS


def test_events_are_limited(bench: Bench, one_processor: None) -> None:
    """To so many a second and processor; the others are counted."""
    bench.bring(made())
    limit, asked = 10, 500
    with Events(bench.kernel.descriptor("events"), SPECS["events"].entries) as events, bench.kernel.changing(Settings(events=limit)):
        list(events.pending())
        began = time.monotonic()
        # what tests before have used up of this second
        syscall.update(bench.kernel.descriptor("allowance"), bytes(4), bytes(SPECS["allowance"].value * syscall.possible_processors()))
        for port in range(asked):
            assert not bench.ask(frame_of(replace(THERE, port=port)))
        seconds = int(time.monotonic() - began) + 2
        told = len(list(events.pending()))
    assert limit <= told <= limit * seconds < asked
    assert told + lost(bench) == asked


def lost(bench: Bench) -> int:
    """How many events could not be told, by all processors."""
    spec, processors = SPECS["allowance"], syscall.possible_processors()
    found = syscall.lookup(bench.kernel.descriptor("allowance"), bytes(4), spec.value * processors)
    assert found is not None
    return sum(struct.unpack_from("=QII", found, at)[2] for at in range(0, len(found), spec.value))


def refusals(bench: Bench) -> int:
    return sum(1 for _ in syscall.keys_of(bench.kernel.descriptor("refusals"), SPECS["refusals"].key))


def test_what_was_refused_is_answered_until_it_is_an_answer_itself(bench: Bench) -> None:
    """The server may open what the client may not: then the client's next packet is no knock but an answer."""
    bench.bring(made(WEB, options=Options(deny_action=DenyAction.REJECT)))
    bench.forget()
    bench.kernel.forget("refusals")
    knock = replace(THERE, protocol=17, port=53)

    def refuse(packet: Packet, **more: bytes) -> Run:
        return syscall.try_program(bench.programs[REFUSE], frame_of(packet, **more))

    assert refuse(knock).value == NEXT, "nobody has decided about it yet"
    assert not bench.ask(frame_of(knock))
    assert refusals(bench) == 1
    before = bench.kernel.counters()[ISOLATION]
    answered = refuse(knock)
    assert answered.value == REDIRECT
    packets, size = (after - then for after, then in zip(bench.kernel.counters()[ISOLATION], before, strict=True))
    assert (packets, size) == (1, len(frame_of(knock)) - 14), "counted as any other that is denied"
    said = answered.packet[14:]
    assert (said[9], said[20:22], said[48:]) == (1, b"\3\15", frame_of(knock)[34:42]), "administratively prohibited, and what"
    assert (said[12:16], said[16:20]) == (frame_of(knock)[30:34], frame_of(knock)[26:30]), "from where it went to whom it came from"
    for other in (replace(knock, port=54), replace(knock, source_port=1), back(knock), replace(knock, protocol=6)):
        assert refuse(other).value == NEXT
    assert refuse(knock, extensions=bytes(4)).value == NEXT, "with options"
    assert bench.ask(frame_of(back(knock)))
    assert refusals(bench) == 0
    assert refuse(knock).value == NEXT
    assert bench.ask(frame_of(knock))


def test_a_refused_connection_is_reset(bench: Bench) -> None:
    bench.bring(made(WEB, options=Options(deny_action=DenyAction.REJECT)))
    knock = replace(THERE, port=81)
    for flags, sent in ((SYN, b"\x50\x14"), (ACK, b"\x50\x04")):
        bench.forget()
        bench.kernel.forget("refusals")
        assert not bench.ask(frame_of(knock, flags=flags))
        answered = syscall.try_program(bench.programs[REFUSE], frame_of(knock, flags=flags))
        assert answered.value == REDIRECT
        tcp = answered.packet[34:]
        assert (tcp[:2], tcp[2:4], tcp[12:14]) == (frame_of(knock)[36:38], frame_of(knock)[34:36], sent)
    assert syscall.try_program(bench.programs[REFUSE], frame_of(knock, flags=RST)).value == NEXT, "no reset is answered"
    bench.bring(made(options=Options(deny_action=DenyAction.REJECT)))
    assert syscall.try_program(bench.programs[REFUSE], frame_of(knock)).value == NEXT, "policy has changed, it has to be asked again"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=14, max_size=120), kind=st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06"]))
def test_whatever_comes_in_is_left_to_others(one: Bench, content: bytes, kind: bytes) -> None:
    one.bring(made(WEB, options=Options(deny_action=DenyAction.REJECT)))
    frame = content[:12] + kind + content[12:]
    assert syscall.try_program(one.programs[REFUSE], frame.ljust(54, b"\0")).value == NEXT


def test_closing_connections_are_remembered_as_such(bench: Bench) -> None:
    """So that they are forgotten soon."""
    bench.bring(made(WEB))
    for packet, flags, closing in ((THERE, SYN, 0), (back(THERE), SYN | ACK, 0), (back(THERE), FIN | ACK, 1), (THERE, ACK, 1)):
        assert bench.ask(frame_of(packet, flags=flags))
        spec = SPECS["connections"]
        (value,) = syscall.entries_of(bench.kernel.descriptor("connections"), key=spec.key, value=spec.value, trie=False).values()
        assert struct.unpack("=8xQ9xB6x", value)[1] == closing, flags


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    protocol=st.integers(0, 255),
    family=st.sampled_from([4, 6]),
    payload=st.binary(max_size=80),
    cut=st.integers(34, 200),
    flips=st.lists(st.tuples(st.integers(14, 80), st.integers(0, 255)), max_size=4),
)
def test_nothing_malformed_gets_in(  # noqa: PLR0917  # hypothesis gives them by name
    one: Bench, protocol: int, family: int, payload: bytes, cut: int, flips: list[tuple[int, int]]
) -> None:
    """Whatever is done to a packet for an isolated pod, it stays outside, unless it is for somebody else by now or neighbour discovery."""
    one.bring(made(WEB))
    one.forget()
    client, server = (CLIENT, SERVER) if family == 4 else (CLIENT6, SERVER6)
    frame = bytearray(ethernet(family) + network(client, server, protocol, payload))
    for at, value in flips:
        if at < len(frame):
            frame[at] = value
    frame = frame[: max(cut, 34 if family == 4 else 54)]
    target = bytes(frame[30:34]) if family == 4 else bytes(frame[38:54])
    for_server = target == server.address.to_bytes(4 if family == 4 else 16, "big")
    source = bytes(frame[26:30]) if family == 4 else bytes(frame[22:38])
    known = source in {
        address.address.to_bytes(len(source), "big") for address in (SERVER, SERVER6, NODE) if len(source) * 8 == address.bits
    }
    if one.ask(bytes(frame)) and for_server and not known:
        assert _may_pass(bytes(frame), family), bytes(frame).hex()


def _may_pass(frame: bytes, family: int) -> bool:
    """TCP to port 80, or neighbour discovery, read by simpler means."""
    if family == 4:
        start, protocol = 14 + (frame[14] & 15) * 4, frame[23]
    else:
        start, protocol = 54, frame[20]
        for _ in range(8):
            if protocol not in {0, 43, 44, 51, 60, 135, 139, 140} or start + 2 > len(frame):
                break
            length = 8 if protocol == 44 else (frame[start + 1] + 2) * 4 if protocol == 51 else (frame[start + 1] + 1) * 8
            protocol, start = frame[start], start + length
    if protocol == 58:
        return start < len(frame) and 133 <= frame[start] <= 137
    return protocol == 6 and frame[start + 2 : start + 4] == b"\0\x50"


def test_the_bench_itself_makes_sound_packets() -> None:
    assert transport(THERE)[:4] == struct.pack("!HH", 40000, 80)
    assert frame_of(THERE)[:14] == ethernet(4)
