"""Packets that are refused: who is answered, by which way of attaching, and that nothing slips through while answers are made."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ebpf_cases import SMALL, start
from ebpf_pods import program_of

from polyplane.ir.program import DenyAction, Options
from polyplane_conformance.sandbox import Sandbox, Service, Topology
from polyplane_conformance.stage import wait_for
from polyplane_ebpf.backend import EbpfBackend

pytestmark = [pytest.mark.netns, pytest.mark.needs("ip")]

REJECT = Options(deny_action=DenyAction.REJECT)
#: Tell what becomes of a connection: address, port.
CONNECT = """
import socket, sys
one = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_STREAM)
one.settimeout(30)
try:
    one.connect((sys.argv[1], int(sys.argv[2])))
    print("open")
except OSError as error:
    print(type(error).__name__)
"""
#: Send datagrams until one is answered, or an error comes; tell which, and after how many: address, port, size.
SEND = """
import socket, sys
one = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(0.5)
one.connect((sys.argv[1], int(sys.argv[2])))
said = "silence"
for count in range(1, 6):
    try:
        one.send(bytes(int(sys.argv[3])))
        one.recv(9000)
        said = "answer"
        break
    except TimeoutError:
        continue
    except OSError as error:
        said = "refused"
        break
print(said, count)
"""
#: Answer on TCP and UDP: port.
SERVE = """
import select, socket, sys
port = int(sys.argv[1])
many = []
for family in (socket.AF_INET, socket.AF_INET6):
    listener, datagrams = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
    for one in (listener, datagrams):
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("", port))
    listener.listen(16)
    many += [listener, datagrams]
print("ready", flush=True)
while True:
    for one in select.select(many, [], [])[0]:
        if one.type == socket.SOCK_STREAM:
            one.accept()[0].close()
        else:
            content, sender = one.recvfrom(9000)
            one.sendto(content, sender)
"""
PORT = "9090"


@pytest.fixture(scope="module", params=["tcx", "clsact"])
def attach(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox(attach: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    logs = tmp_path_factory.mktemp("servers")
    with Sandbox.build(Topology.grid(namespaces="x", names="abc")) as built:
        backend = EbpfBackend({**SMALL, "netns": str(built.node_netns), "attach": attach})
        for where in ("x/a", built.topology.node.name):
            said = logs / f"{where.replace('/', '-')}.log"
            built.spawn(where, [sys.executable, "-c", SERVE, PORT], output=said)
            wait_for(lambda said=said: said.exists() and "ready" in said.read_text(encoding="utf-8"), "the server")
        backend.polyplane_apply(start(program_of(built, REJECT)))
        yield built
        backend.polyplane_teardown()


def address(sandbox: Sandbox, name: str, family: int) -> str:
    found = sandbox.topology.address_of(name, family)
    assert found is not None
    return found


def connect(sandbox: Sandbox, where: str, to: str, port: str = PORT) -> str:
    return sandbox.run(where, [sys.executable, "-c", CONNECT, to, port]).strip()


def send(sandbox: Sandbox, where: str, to: str, size: int) -> str:
    return sandbox.run(where, [sys.executable, "-c", SEND, to, PORT, str(size)]).split()[0]


@pytest.mark.parametrize("family", [4, 6])
def test_everybody_is_answered(sandbox: Sandbox, family: int) -> None:
    """From another pod, small and big; to the own node, which no packet leaves for."""
    pod, node = address(sandbox, "x/a", family), address(sandbox, sandbox.topology.node.name, family)
    for to in (pod, node):
        assert connect(sandbox, "x/b", to) == "open"
        assert connect(sandbox, "x/c", to) == "ConnectionRefusedError"
        for size in (100, 1300):
            assert send(sandbox, "x/b", to, size) == "answer", size
            assert send(sandbox, "x/c", to, size) == "refused", size


def test_translated_addresses_are_answered_under_the_first(sandbox: Sandbox) -> None:
    node = address(sandbox, sandbox.topology.node.name, 4)
    sandbox.add_service(Service(address="10.96.0.1", port=80, protocol=6, target=node, target_port=int(PORT)))
    assert connect(sandbox, "x/b", "10.96.0.1", "80") == "open"
    assert connect(sandbox, "x/c", "10.96.0.1", "80") == "ConnectionRefusedError"


def test_what_is_refused_in_pieces_does_not_pass_in_pieces(sandbox: Sandbox, tmp_path: Path) -> None:
    """A packet that came in pieces leaves in pieces, and those are no packets that anybody refused."""
    pod = address(sandbox, "x/a", 4)
    for where in ("x/b", "x/c"):
        (way,) = json.loads(sandbox.run(where, ["ip", "-j", "route", "get", pod]))
        sandbox.run(where, ["ip", "route", "add", pod, "via", way["gateway"], "dev", way["dev"], "mtu", "lock", "300"])
    seen = {}
    for where in ("x/b", "x/c"):
        with sandbox.capture("x/a", tmp_path / f"{where[-1]}.pcap", f"ip src {address(sandbox, where, 4)}") as file:
            send(sandbox, where, pod, 400)
        said = sandbox.run("x/a", ["tcpdump", "-nr", str(file)])
        seen[where] = len(said.splitlines())
    assert seen["x/b"] >= 2, "two pieces"
    assert seen["x/c"] == 0


def test_what_is_allowed_a_moment_later_is_not_refused(sandbox: Sandbox, attach: str) -> None:
    """Notes about refusals hold for the policy they were made under."""
    options = {**SMALL, "netns": str(sandbox.node_netns), "attach": attach}
    node = address(sandbox, sandbox.topology.node.name, 4)
    script = SEND.replace("range(1, 6)", "range(1, 3)").replace("one.connect(", "one.bind(('', 7777)); one.connect(")

    def ask() -> str:
        return sandbox.run("x/c", [sys.executable, "-c", script, node, PORT, "100"]).split()[0]

    assert ask() == "refused"
    program = program_of(sandbox, REJECT)
    free = {name: one if name != "x/c" else replace(one, egress=()) for name, one in program.endpoints.items()}
    try:
        EbpfBackend(options).polyplane_apply(start(replace(program, endpoints=free)))
        assert ask() == "answer"
    finally:
        EbpfBackend(options).polyplane_apply(start(program))
