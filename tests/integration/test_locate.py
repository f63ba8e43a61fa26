"""The interfaces of pods, found in the kernel of a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.ir.cidr import Cidr
from polyplane.locate import Locator

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

Found = Callable[..., dict[str, str]]


@pytest.fixture
def node() -> Iterator[Callable[[str], None]]:
    name = f"locate{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)

    def run(script: str) -> None:
        for line in script.strip().splitlines():
            subprocess.run(["ip", "netns", "exec", name, *line.split()], check=True)

    run("ip link set lo up")
    run.path = Path("/run/netns", name)  # type: ignore[attr-defined]
    yield run
    subprocess.run(["ip", "netns", "del", name], check=True)


class Watching:
    """A locator in the node's namespace, and what it has told."""

    def __init__(self, node: Callable[[str], None], *, ports: bool = False) -> None:
        self.told: list[Mapping[Cidr, str]] = []
        self.locator = Locator(self.told.append, ports=ports)
        in_namespace(str(node.path), self.locator.__enter__)  # type: ignore[attr-defined]

    def until(self, **wanted: str) -> None:
        deadline = time.monotonic() + 8
        expected = {Cidr.parse(address.replace("_", ".").replace("x", ":")): name for address, name in wanted.items()}
        while not self.told or self.told[-1] != expected:
            assert time.monotonic() < deadline, f"{self.told[-1:]} instead of {expected}"
            time.sleep(0.01)


POD = """
ip link add {0} type veth peer name {0}p
ip link set {0} up
ip link set {0}p up
"""


def test_routes(node: Callable[[str], None]) -> None:
    node(POD.format("veth1") + "ip route add 10.1.1.1/32 dev veth1\nip link add real type bridge\nip link set real up")
    node("ip addr add 192.0.2.1/24 dev real\nip route add 10.9.9.9/32 via 192.0.2.2 dev real\nip route add 10.9.9.8/32 dev real")
    watching = Watching(node)
    with watching.locator:
        watching.until(**{"10_1_1_1": "veth1"})
        # A pod that comes later, over both families.
        node(POD.format("veth2"))
        node("ip route add 10.1.1.2/32 dev veth2\nip route add fd00::2/128 dev veth2")
        watching.until(**{"10_1_1_1": "veth1", "10_1_1_2": "veth2", "fd00xx2": "veth2"})
        # Going down takes the routes along, IPv4's without a word; and so does going away.
        node("ip link set veth1 down")
        watching.until(**{"10_1_1_2": "veth2", "fd00xx2": "veth2"})
        node("ip link del veth2")
        watching.until()
        # The address of a pod that was moved to a new interface.
        node(POD.format("veth3") + "ip route add 10.1.1.1/32 dev veth3")
        watching.until(**{"10_1_1_1": "veth3"})
        node("ip route del 10.1.1.1/32 dev veth3")
        watching.until()


BRIDGE = """
ip link add cni0 type bridge
ip link set cni0 up
ip addr add 10.2.0.1/24 dev cni0
ip link set veth1 master cni0
ip neigh add 10.2.0.5 lladdr 02:00:00:00:00:05 dev cni0
bridge fdb add 02:00:00:00:00:05 dev veth1 master
"""


@pytest.mark.parametrize("ports", [False, True])
def test_a_bridge_is_no_interface_of_a_pod(node: Callable[[str], None], ports: bool) -> None:
    watching = Watching(node, ports=ports)
    with watching.locator:
        node(POD.format("veth1") + BRIDGE.strip())
        node(POD.format("veth9") + "ip route add 10.1.1.9/32 dev veth9")
        watching.until(**({"10_2_0_5": "veth1", "10_1_1_9": "veth9"} if ports else {"10_1_1_9": "veth9"}))
        node("ip link set veth1 nomaster")
        watching.until(**{"10_1_1_9": "veth9"})
