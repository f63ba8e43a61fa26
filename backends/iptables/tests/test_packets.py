"""What rules count and log, with packets: the loopback interface stands for a pod that talks to its node."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from backend_programs import OUT, endpoint, isolated, policy, program, rule
from hypothesis import given
from hypothesis import strategies as st
from ipt_namespace import Namespace
from structlog.testing import capture_logs

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.hookspecs import PacketEvent, PacketEventKind
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import EMPTY, Action, DenyAction, Direction, Options, PortRange, Program
from polyplane.reconcile.diff import diff
from polyplane_iptables.backend import IptablesBackend
from polyplane_iptables.nflog import parse_event, parse_messages

pytestmark = pytest.mark.netns

OPEN = rule("open", OUT, 0, protocol=17, ports=(PortRange(7, 7),))
#: Who sends and where to: what an endpoint sends to itself is exempt.
HOSTS = {4: ("127.0.0.1", "127.0.0.2"), 6: ("::1", "fd00::7")}


def pod(*rules: object, **options: object) -> Program:
    one = policy(OUT, OPEN, *rules)  # type: ignore[arg-type]  # rules are rules
    return program(endpoint("a", "lo", "127.0.0.1", "::1", egress=isolated(OUT, one)), one, options=Options(**options))  # type: ignore[arg-type]


def denied_by(wanted: Program) -> int:
    (one,) = wanted.endpoints.values()
    assert one.egress[0].isolation is not None
    return one.egress[0].isolation.id


def send(namespace: Namespace, port: int, *, times: int = 1, family: int = 4) -> None:
    """Send datagrams from a port that is not theirs."""

    def work() -> None:
        with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.bind((HOSTS[family][0], 5000))
            for _ in range(times):
                sender.sendto(b"x", (HOSTS[family][1], port))

    in_namespace(namespace.path, work)


def packets(backend: IptablesBackend) -> Mapping[int, int]:
    return {count.rule_id: count.packets for count in backend.polyplane_counters()}


@pytest.fixture
def looped(namespace: Namespace) -> Namespace:
    namespace.run("ip", "link", "set", "lo", "up")
    namespace.run("ip", "address", "add", "fd00::7/128", "dev", "lo", "nodad")
    return namespace


def test_counters_go_on_when_chains_are_written_anew(looped: Namespace) -> None:
    backend, first = looped.backend(), pod()
    backend.polyplane_apply(diff(EMPTY, first))
    assert packets(backend) == {OPEN.id: 0, denied_by(first): 0}
    send(looped, 7, times=3)
    send(looped, 7, times=2, family=6)
    send(looped, 9)
    assert packets(backend) == {OPEN.id: 5, denied_by(first): 1}
    send(looped, 7, times=4)
    other = pod(rule("more", OUT, 1, protocol=6))
    backend.polyplane_apply(diff(first, other))
    assert packets(backend)[OPEN.id] == 9, "what came between the last reading and the change is lost"
    send(looped, 7)
    # Somebody flushes everything, and it is repaired.
    looped.iptables("-F")
    backend.polyplane_apply(diff(EMPTY, other))
    assert packets(backend)[OPEN.id] >= 9
    before = packets(backend)[OPEN.id]
    send(looped, 7, times=2)
    assert packets(backend)[OPEN.id] == before + 2


@pytest.mark.parametrize("deny_action", DenyAction)
@pytest.mark.parametrize("family", [4, 6])
def test_what_is_denied_is_told(deny_action: DenyAction, family: int, looped: Namespace) -> None:
    logged = rule("logged", OUT, 1, Action.LOG, protocol=17, ports=(PortRange(8, 9),))
    wanted = pod(logged, deny_action=deny_action)
    backend = looped.backend(log_group=5, log_denied=True)
    backend.polyplane_apply(diff(EMPTY, wanted))
    assert backend.polyplane_audit(wanted) == ()
    assert backend.polyplane_events() == ()
    send(looped, 7, family=family)
    send(looped, 9, family=family)
    source, destination = map(Cidr.parse, HOSTS[family])
    told = PacketEvent(
        kind=PacketEventKind.LOG,
        rule_id=logged.id,
        direction=Direction.EGRESS,
        source=source,
        destination=destination,
        protocol=17,
        source_port=5000,
        port=9,
    )
    heard: list[PacketEvent] = []
    deadline = time.monotonic() + 60
    while len(heard) < 2 and time.monotonic() < deadline:
        heard += backend.polyplane_events()
    assert heard == [told, replace(told, kind=PacketEventKind.DENY, rule_id=denied_by(wanted))]
    assert backend.polyplane_events() == ()
    backend.polyplane_teardown()


def test_nothing_leaks_or_is_lost_while_rules_change_and_others_hold_the_lock(looped: Namespace) -> None:
    """Datagrams all the while: those that all programs allow arrive, each of them, and those that all deny do not, not one."""
    backend = looped.backend()
    programs = (pod(), pod(rule("more", OUT, 1, protocol=6), deny_action=DenyAction.REJECT), pod(rule("other", OUT, 1, protocol=132)))
    backend.polyplane_apply(diff(EMPTY, programs[0]))
    holding = f"for turn in $(seq 20); do flock --no-fork {looped.lock_file} sleep 0.2; sleep 0.1; done"
    over = threading.Event()
    sent, came = Counter[int](), Counter[int]()

    def work() -> None:
        with contextlib.ExitStack() as stack:
            receivers = {port: stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for port in (7, 9)}
            for port, receiver in receivers.items():
                receiver.bind((HOSTS[4][1], port))
                receiver.settimeout(0)
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            while not over.is_set():
                for port, receiver in receivers.items():
                    # What is refused may be told to the sender at the next turn.
                    with contextlib.suppress(PermissionError):
                        sender.sendto(b"x", (HOSTS[4][1], port))
                        sent[port] += 1
                    with contextlib.suppress(BlockingIOError):
                        receiver.recv(8)
                        came[port] += 1
                time.sleep(0.001)

    with subprocess.Popen(["sh", "-c", holding]) as holder, ThreadPoolExecutor() as pool:
        traffic = pool.submit(in_namespace, looped.path, work)
        changes, held = 0, programs[0]
        try:
            while holder.poll() is None or changes < 6:
                wanted = programs[(changes + 1) % len(programs)]
                backend.polyplane_apply(diff(held, wanted))
                changes, held = changes + 1, wanted
        finally:
            over.set()
        traffic.result()
    assert sent[7] == came[7] > 100
    assert sent[9] > 100
    assert came[9] == 0


def test_a_group_that_somebody_listens_to_is_no_harm(looped: Namespace) -> None:
    wanted, one, other = pod(), looped.backend(log_group=5), looped.backend(log_group=5)
    one.polyplane_apply(diff(EMPTY, wanted))
    assert one.polyplane_events() == ()
    with capture_logs() as logs:
        assert other.polyplane_events() == ()
        assert other.polyplane_events() == ()
    assert [entry["group"] for entry in logs] == [5]
    assert one.polyplane_events() == ()
    one.polyplane_teardown()


def test_what_is_shown_is_ours(looped: Namespace) -> None:
    looped.iptables("-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "DROP")
    looped.run("ipset", "create", "others", "hash:ip")
    backend = looped.backend()
    backend.polyplane_apply(diff(EMPTY, pod()))
    text = backend.polyplane_show()
    assert f"{OPEN.id:08x}" in text
    assert "-A INPUT" in text
    assert "192.0.2.0" not in text
    assert "others" not in text
    assert [fill.name for fill in backend.polyplane_fill()] == ["largest ipset"]


@given(st.binary(max_size=120), st.binary(max_size=60))
def test_what_cannot_be_read_is_passed_over(packet: bytes, noise: bytes) -> None:
    parse_event(b"polyplane deny ingress 0badf00d\0", packet)
    assert parse_event(noise, packet) is None
    list(parse_messages(noise + packet))


@pytest.mark.parametrize(
    ("headers", "port"),
    [
        ("", 53),
        ("1100010000000000", 53),
        ("1100000000000000", 53),
        ("1100000800000001", 0),
    ],
    ids=["plain", "hop-by-hop", "first fragment", "later fragment"],
)
def test_ports_behind_extension_headers(headers: str, port: int) -> None:
    first = {"": 17, "1100010000000000": 0}.get(headers, 44)
    address = bytes(15) + b"\1"
    packet = bytes([0x60, 0, 0, 0, 0, 0, first, 64]) + address + address + bytes.fromhex(headers) + bytes.fromhex("1388003500080000")
    event = parse_event(b"polyplane log egress 00000007\0", packet)
    assert event is not None
    assert (event.protocol, event.port, event.rule_id) == (17, port, 7)
