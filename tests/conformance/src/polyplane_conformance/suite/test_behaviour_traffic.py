"""Behaviour: traffic that a truth table does not show: services, refusals, errors, neighbours, fragments."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from polyplane.ir.features import Feature
from polyplane.ir.program import DenyAction, Options
from polyplane_conformance.actions import ApplyClusterPolicy, DeleteClusterPolicy
from polyplane_conformance.cast import plan
from polyplane_conformance.needs import require
from polyplane_conformance.probe.model import TCP, Outcome, Probe, Traffic
from polyplane_conformance.sandbox import SandboxError, Service, Translator
from polyplane_conformance.stage import Stage, only_from, pod, policy, wait_for

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

DOOR = policy("x/door", podSelector=pod("a"), ingress=only_from("b", ports=[{"port": 80}]))
ADDRESSES = {4: "10.96.0.10", 6: "fd96::10"}
#: The same service where iptables translates: both ways exist beside each other in a shared sandbox.
LEGACY_ADDRESSES = {4: "10.96.0.20", 6: "fd96::20"}
#: Sends a datagram of 4000 bytes from another place and waits for it; argv: address, port.
SEND = "import socket,sys; f=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET; s=socket.socket(f,2); s.settimeout(1.5); s.sendto(b'x'*4000,(sys.argv[1],int(sys.argv[2]))); print(len(s.recv(9000)))"
#: Sends a small datagram with IPv4 options, or a destination options header of IPv6; otherwise like `SEND`.
SEND_WITH_OPTIONS = (
    "import socket,sys; six=':' in sys.argv[1]; s=socket.socket(socket.AF_INET6 if six else socket.AF_INET,2); s.settimeout(1.5); "
    "s.setsockopt(*((socket.IPPROTO_IPV6,socket.IPV6_DSTOPTS,bytes([0,0,1,4,0,0,0,0])) if six else (socket.IPPROTO_IP,socket.IP_OPTIONS,b'\\x01'*4))); "
    "s.sendto(b'x',(sys.argv[1],int(sys.argv[2]))); print(len(s.recv(9)))"
)
ECHO = "import socket,sys; f=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET; s=socket.socket(f,2); s.bind((sys.argv[1],int(sys.argv[2]))); print('ready',flush=True)\nwhile True:\n d,a=s.recvfrom(9000); s.sendto(d,a)"
#: Sends a datagram to a port nobody listens on; prints what the error says.
KNOCK = "import socket,sys; f=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET; s=socket.socket(f,2); s.settimeout(1.5); s.connect((sys.argv[1],int(sys.argv[2]))); s.send(b'x')\ntry: s.recv(9)\nexcept OSError as e: print(type(e).__name__)"

#: Answers a datagram only when its sender has gone; says what came of it.
LATE = (
    "import socket,sys,time; f=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET; s=socket.socket(f,2); "
    "s.bind((sys.argv[1],int(sys.argv[2]))); print('ready',flush=True); d,a=s.recvfrom(9); s.connect(a); s.settimeout(1.5); "
    "time.sleep(0.3); s.send(b'x')\n"
    "try: s.recv(9)\n"
    "except OSError as e: print(type(e).__name__,flush=True)"
)
#: Sends a datagram and goes.
GONE = (
    "import socket,sys; f=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET; s=socket.socket(f,2); "
    "s.sendto(b'x',(sys.argv[1],int(sys.argv[2])))"
)


def _with_service(stage: Stage, translator: Translator = Translator.NFT) -> Stage:
    """Add a service, port 8000, whose only pod is x/a, port 80."""
    require(*(("nft",) if translator is Translator.NFT else ("iptables", "ip6tables")))
    for family, address in _addresses(translator).items():
        service = Service(address=address, port=8000, protocol=TCP, target=plan().of("x/a")[family], target_port=80)
        stage.sandbox.add_service(service, translator)
    return stage


def _addresses(translator: Translator) -> Mapping[int, str]:
    return ADDRESSES if translator is Translator.NFT else LEGACY_ADDRESSES


def _through(stage: Stage, source: str, translator: Translator = Translator.NFT) -> set[Outcome]:
    probes = [
        Probe(source=source, destination="x/a", traffic=Traffic.parse("TCP/8000", family), address=address)
        for family, address in _addresses(translator).items()
    ]
    return {result.outcome for result in stage.sandbox.probe(probes)}


@pytest.mark.parametrize("translator", Translator)
def test_policy_sees_the_pod_behind_a_service(stage: Stage, translator: Translator) -> None:
    """Rules speak of the pod's own address and port, whatever address the client used, and whoever translates it."""
    service = _with_service(stage, translator)
    service.begin()
    assert _through(service, "x/c", translator) == {Outcome.ALLOWED}
    service.begin(DOOR)
    assert _through(service, "x/b", translator) == {Outcome.ALLOWED}
    assert _through(service, "x/c", translator) == {Outcome.DENIED}
    service.begin(policy("x/door", podSelector=pod("a"), ingress=only_from("b", ports=[{"port": 8000}])))
    assert _through(service, "x/b", translator) == {Outcome.DENIED}


def test_the_way_out_sees_the_pod_behind_a_service(stage: Stage) -> None:
    """An egress rule for the pod opens the service; one for the service's address does not."""
    service = _with_service(stage)
    to_pod = [{"to": [{"podSelector": pod("a")}], "ports": [{"port": 80}]}]
    service.begin(policy("x/out", podSelector=pod("b"), policyTypes=["Egress"], egress=to_pod))
    assert _through(service, "x/b") == {Outcome.ALLOWED}
    blocks = [{"ipBlock": {"cidr": "10.96.0.0/16"}}, {"ipBlock": {"cidr": "fd96::/64"}}]
    service.begin(policy("x/out", podSelector=pod("b"), policyTypes=["Egress"], egress=[{"to": blocks}]))
    assert _through(service, "x/b") == {Outcome.DENIED}


def test_a_pod_reaches_itself_through_a_service(stage: Stage) -> None:
    """However closed a pod is, it reaches itself, through a service too."""
    service = _with_service(stage)
    service.begin(policy("x/closed", podSelector={}, policyTypes=["Ingress", "Egress"]))
    assert _through(service, "x/a") == {Outcome.ALLOWED}
    assert _through(service, "x/b") == {Outcome.DENIED}


def test_tiers_of_administrators_cover_the_way_to_oneself(stage: Stage) -> None:
    """Unlike NetworkPolicy, the admin and baseline tiers apply to a pod that calls itself through a service."""
    service = _with_service(stage)
    subject = {"pods": {"namespaceSelector": {"matchLabels": {"ns": "x"}}, "podSelector": pod("a")}}
    rules = ({"egress": [{"action": "Deny", "to": [subject]}]}, {"ingress": [{"action": "Deny", "from": [subject]}]})
    service.begin(policy("x/closed", podSelector={}, policyTypes=["Ingress"]))
    for tier in ("Admin", "Baseline"):
        for rule in rules:
            service.act(ApplyClusterPolicy(name="self", spec={"tier": tier, "priority": 1, "subject": subject, **rule}))
            assert _through(service, "x/a") == {Outcome.DENIED}
        service.act(DeleteClusterPolicy(name="self"))
        assert _through(service, "x/a") == {Outcome.ALLOWED}


def test_reject_answers(stage: Stage) -> None:
    """With ``reject`` the sender is told at once, for TCP and UDP, on the way in and on the way out.

    A backend that states it cannot do that still denies.
    """
    refused = Outcome.REJECTED if Feature.REJECT in stage.rig.dataplane.capabilities().supported else Outcome.DENIED
    stage.begin(
        DOOR,
        policy("x/out", podSelector=pod("c"), policyTypes=["Egress"]),
        options=Options(deny_action=DenyAction.REJECT),
    )
    for kind in ("TCP/80", "UDP/80"):
        for family in (4, 6):
            assert stage.outcome("y/a", "x/a", kind, family=family) is refused
            assert stage.outcome("x/c", "y/a", kind, family=family) is refused
    stage.expect("TCP/80", allowed=["x/b -> x/a"])


def test_drop_is_silent(stage: Stage) -> None:
    """By default the sender hears nothing."""
    stage.begin(DOOR)
    for kind in ("TCP/80", "UDP/80"):
        for family in (4, 6):
            assert stage.outcome("y/a", "x/a", kind, family=family) is Outcome.DENIED


@pytest.mark.parametrize("family", [4, 6])
def test_errors_about_allowed_traffic_come_back(stage: Stage, family: int) -> None:
    """A closed pod is told that the port it knocked at is not served."""
    stage.begin(policy("x/closed", podSelector=pod("a"), policyTypes=["Ingress"]))
    stage.expect(denied=["y/a -> x/a"], families=[family])
    said = stage.run(sys.executable, "-c", KNOCK, plan().of("y/a")[family], "4444", where="x/a")
    assert said.strip() == "ConnectionRefusedError"


@pytest.mark.parametrize("family", [4, 6])
def test_errors_about_replies_come_through(stage: Stage, tmp_path: Path, family: int) -> None:
    """A server is told that its client has gone, although the rule that let the client in speaks of UDP only."""
    stage.begin(policy("x/door", podSelector=pod("a"), ingress=only_from("b", ports=[{"protocol": "UDP", "port": 5556}])))
    address, said = plan().of("x/a")[family], tmp_path / "server.log"
    server = stage.sandbox.spawn("x/a", [sys.executable, "-c", LATE, address, "5556"], output=said)
    wait_for(lambda: said.exists() and "ready" in said.read_text(encoding="utf-8"), "the server")
    stage.run(sys.executable, "-c", GONE, address, "5556", where="x/b")
    server.wait(10)
    assert "ConnectionRefusedError" in said.read_text(encoding="utf-8")


def test_neighbours_are_found(stage: Stage) -> None:
    """IPv6 neighbours are looked up anew under the strictest policy."""
    stage.begin(
        policy("x/closed", podSelector={}, policyTypes=["Ingress", "Egress"]),
        policy("x/pair-in", podSelector=pod("a"), ingress=only_from("b")),
        policy("x/pair-out", podSelector=pod("b"), policyTypes=["Egress"], egress=[{"to": [{"podSelector": pod("a")}]}]),
    )
    for _ in range(2):
        for place in ("node-1", "x/a", "x/b"):
            stage.run("ip", "neigh", "flush", "all", where=place)
        stage.expect(allowed=["x/b -> x/a"], denied=["x/c -> x/a", "x/a -> x/b"])


def _until_answered(stage: Stage, program: str, *arguments: str) -> str:
    """Let x/b send until the server, which is just starting, answers; return what it says."""
    for _ in range(20):
        try:
            return stage.run(sys.executable, "-c", program, *arguments, where="x/b").strip()
        except SandboxError:
            continue
    return pytest.fail("no answer to a datagram that is allowed")


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_follow_their_first(stage: Stage, family: int) -> None:
    """A datagram in fragments passes where it may, although only its first fragment has ports, and nowhere else."""
    target = plan().of("x/a")[family]
    allowed = policy("x/door", podSelector=pod("a"), ingress=only_from("b", ports=[{"protocol": "UDP", "port": 5555}]))
    stage.begin(allowed)
    server = stage.sandbox.spawn("x/a", [sys.executable, "-c", ECHO, target, "5555"])
    try:
        assert _until_answered(stage, SEND, target, "5555") == "4000"
        with pytest.raises(SandboxError, match=r"(?i)timed? ?out"):
            stage.run(sys.executable, "-c", SEND, target, "5555", where="x/c")
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("family", [4, 6])
def test_options_open_nothing(stage: Stage, family: int) -> None:
    """IPv4 options and IPv6 extension headers stand before the ports: who may send still may, who may not cannot hide behind them."""
    target = plan().of("x/a")[family]
    stage.begin(policy("x/door", podSelector=pod("a"), ingress=only_from("b", ports=[{"protocol": "UDP", "port": 5557}])))
    server = stage.sandbox.spawn("x/a", [sys.executable, "-c", ECHO, target, "5557"])
    try:
        _until_answered(stage, SEND_WITH_OPTIONS, target, "5557")
        with pytest.raises(SandboxError, match=r"(?i)timed? ?out"):
            stage.run(sys.executable, "-c", SEND_WITH_OPTIONS, target, "5557", where="x/c")
    finally:
        server.kill()
        server.wait()
