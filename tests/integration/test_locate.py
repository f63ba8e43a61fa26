"""The interfaces of pods, found in the kernel of a namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polyplane.backend_kit.namespaces import in_namespace
from polyplane.compile.places import Place, Places
from polyplane.config import Config
from polyplane.ir.cidr import Cidr
from polyplane.ir.features import Vantage
from polyplane.locate import make_locator
from polyplane_conformance.needs import require
from polyplane_conformance.sandbox.bridges import listens
from polyplane_conformance.sandbox.lone import lone_node
from polyplane_conformance.stage import wait_for

pytestmark = pytest.mark.netns

Found = Callable[..., dict[str, str]]


@pytest.fixture
def node() -> Iterator[Callable[[str], None]]:
    with lone_node("locate") as made:

        def run(script: str) -> None:
            for line in filter(None, script.splitlines()):
                subprocess.run(["ip", "netns", "exec", made.name, *line.split()], check=True)

        run.path = made.path  # type: ignore[attr-defined]
        yield run


class Watching:
    """A locator in the node's namespace, and what it has told."""

    def __init__(self, node: Callable[[str], None], vantage: Vantage = Vantage.DEVICES, **settings: object) -> None:
        self.told: list[Places] = []
        self.locator = make_locator(Config(**{"cni_results": "/nonexistent", **settings}), vantage, self.told.append)  # type: ignore[arg-type]
        in_namespace(str(node.path), self.locator.__enter__)  # type: ignore[attr-defined,union-attr]

    def __enter__(self) -> None:
        """Nothing: it has begun."""

    def __exit__(self, *_: object) -> None:
        self.locator.__exit__()  # type: ignore[union-attr]

    def until(self, **wanted: str) -> None:
        expected = {Cidr.parse(address.replace("_", ".").replace("x", ":")): name for address, name in wanted.items()}
        self.until_told(lambda places: places.interfaces == expected)

    def until_told(self, holds: Callable[[Places], bool]) -> None:
        deadline = time.monotonic() + 60
        while not self.told or not holds(self.told[-1]):
            assert time.monotonic() < deadline, f"{self.told[-1:]}"
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
    with watching:
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


def test_what_leads_on_is_no_pods(node: Callable[[str], None]) -> None:
    """The node's own uplink may be a veth with a host route to its gateway, and a tunnel has a peer."""
    node(POD.format("veth1") + "ip route add 10.1.1.1/32 dev veth1")
    node(POD.format("up0") + "ip addr add 192.0.2.7/32 dev up0\nip route add 169.254.1.1/32 dev up0")
    node(POD.format("tun0") + "ip addr add 10.8.0.1/32 peer 10.8.0.2/32 dev tun0\nip addr add fd08::1/128 peer fd08::2/128 dev tun0")
    node("ip route add default via 169.254.1.1 dev up0")
    watching = Watching(node)
    with watching:
        watching.until(**{"10_1_1_1": "veth1"})
        node("ip route del default")
        watching.until(**{"10_1_1_1": "veth1", "169_254_1_1": "up0"})
        node("ip route add 198.51.100.0/24 nexthop via 169.254.1.1 dev up0 onlink nexthop via 169.254.1.2 dev veth1 onlink")
        watching.until()
        node("ip link set up0 down")
        watching.until(**{"10_1_1_1": "veth1"})


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
    watching = Watching(node, Vantage.PORTS if ports else Vantage.DEVICES)
    with watching:
        node(POD.format("veth1") + BRIDGE.strip())
        node(POD.format("veth9") + "ip route add 10.1.1.9/32 dev veth9")
        watching.until(**({"10_2_0_5": "veth1", "10_1_1_9": "veth9"} if ports else {"10_1_1_9": "veth9"}))
        node("ip link set veth1 nomaster")
        watching.until(**{"10_1_1_9": "veth9"})


# --- results of network plugins


def result(pod: str, *interfaces: str, addresses: tuple[str, ...] = ("10.1.1.1/24",), name: str = "eth0") -> str:
    """What libcni keeps, with the last interface inside the pod."""
    namespace, _, short = pod.partition("/")
    made = [{"name": one, "mac": "02:00:00:00:00:01"} for one in interfaces]
    inside = {"name": name, "mac": "02:00:00:00:00:02", "sandbox": "/var/run/netns/cni-1"}
    return json.dumps(
        {
            "kind": "cniCacheV1",
            "containerId": "c0ffee",
            "config": "e30=",
            "ifName": name,
            "networkName": "net",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", short], ["K8S_POD_UID", "1"]],
            "result": {
                "cniVersion": "1.0.0",
                "interfaces": [*made, inside],
                "ips": [{"address": one, "interface": len(made), "gateway": "10.1.1.254"} for one in addresses],
                "dns": {},
            },
        }
    )


def test_results_of_plugins_name_the_pod_and_the_kernel_its_interface(node: Callable[[str], None], tmp_path: Path) -> None:
    results = tmp_path / "results"
    watching = Watching(node, cni_results=str(results))
    with watching:
        watching.until_told(lambda places: places == Places())
        node(POD.format("veth1") + POD.format("veth2") + "ip link add cni0 type bridge\nip link set veth2 master cni0")
        results.mkdir()
        (results / "net-a-eth0").write_text(result("shop/web", "veth1", addresses=("10.1.1.1/24", "fd00::1/64")))
        web = Place("veth1", (Cidr.parse("10.1.1.1"), Cidr.parse("fd00::1")))
        watching.until_told(lambda places: places.pods == {"shop/web": web})
        # Half a file; one on a bridge, whose port netfilter does not see; a second network; somebody else's file.
        whole = result("shop/db", "cni0", "veth2", addresses=("10.1.1.2/24",))
        (results / "net-b-eth0").write_text(whole[:100])
        (results / "net-c-net1").write_text(result("shop/db", "veth1", addresses=("10.8.8.8/24",), name="net1"))
        (results / "notes").write_text("nothing")
        (results / "net-b-eth0").write_text(whole)
        db = Place(None, (Cidr.parse("10.1.1.2"),))
        watching.until_told(lambda places: places.pods == {"shop/web": web, "shop/db": db})
        # An interface that the kernel has later than the plugin's word.
        (results / "net-d-eth0").write_text(result("shop/late", "veth3", addresses=("10.1.1.3/24",)))
        watching.until_told(lambda places: places.pods.get("shop/late") == Place(None, (Cidr.parse("10.1.1.3"),)))
        node(POD.format("veth3"))
        watching.until_told(lambda places: places.pods.get("shop/late", Place()).interface == "veth3")
        # A sandbox that is made anew, and one that goes.
        (results / "net-e-eth0").write_text(result("shop/web", "veth3", addresses=("10.1.1.4/24",)))
        watching.until_told(lambda places: places.pods.get("shop/web") == Place("veth3", (Cidr.parse("10.1.1.4"),)))
        (results / "net-a-eth0").unlink()
        (results / "net-b-eth0").unlink()
        watching.until_told(lambda places: places.pods.keys() == {"shop/web", "shop/late"})
        shutil.rmtree(results)
        watching.until_told(lambda places: not places.pods)


# --- Open vSwitch's database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Callable[..., None]]:
    require("ovsdb-server")
    subprocess.run(["ovsdb-tool", "create", tmp_path / "db", "/usr/share/openvswitch/vswitch.ovsschema"], check=True)
    running: list[subprocess.Popen[bytes]] = []
    socket = f"unix:{tmp_path}/sock"

    def start() -> None:
        flags = [f"--remote=p{socket}", f"--unixctl={tmp_path}/ctl", f"--log-file={tmp_path}/log", "--no-chdir"]
        running.append(subprocess.Popen(["ovsdb-server", *flags, tmp_path / "db"], stderr=subprocess.DEVNULL))
        wait_for(lambda: listens(tmp_path / "sock"), "ovsdb-server listens")

    def run(*arguments: str) -> None:
        if arguments == ("restart",):
            running[-1].terminate()
            running[-1].wait(60)
            (tmp_path / "sock").unlink(missing_ok=True)
            start()
            return
        subprocess.run(["ovs-vsctl", f"--db={socket}", "--no-wait", *arguments], check=True)

    run.socket = socket  # type: ignore[attr-defined]
    start()
    yield run
    running[-1].terminate()
    running[-1].wait(60)


def test_the_database_of_open_vswitch_names_ports(node: Callable[[str], None], database: Callable[..., None], tmp_path: Path) -> None:
    watching = Watching(node, Vantage.SWITCH, ovsdb=database.socket, cni_results=str(tmp_path / "results"))  # type: ignore[attr-defined]
    with watching:
        watching.until_told(lambda places: places == Places())
        database("add-br", "br-int")
        database("add-port", "br-int", "tap1", "--", "set", "Interface", "tap1", "external_ids:iface-id=shop/web")
        watching.until_told(lambda places: places.pods == {"shop/web": Place("tap1")})
        antrea = ["external_ids:pod-namespace=shop", "external_ids:pod-name=db", 'external_ids:ip-address="10.1.1.2,fd00::2"']
        database("add-port", "br-int", "tap2", "--", "set", "Interface", "tap2", *antrea)
        watching.until_told(lambda places: places.pods.get("shop/db") == Place("tap2", (Cidr.parse("10.1.1.2"), Cidr.parse("fd00::2"))))
        ovn = ["external_ids:iface-id=shop_mail", 'external_ids:ip_addresses="10.1.1.3/24"']
        database("add-port", "br-int", "tap3", "--", "set", "Interface", "tap3", *ovn)
        watching.until_told(lambda places: places.pods.get("shop/mail") == Place("tap3", (Cidr.parse("10.1.1.3"),)))
        # A plugin's result knows the address of a pod whose port says nothing of it.
        (tmp_path / "results").mkdir()
        (tmp_path / "results/net-a-eth0").write_text(result("shop/web", "tap1"))
        watching.until_told(lambda places: places.pods.get("shop/web") == Place("tap1", (Cidr.parse("10.1.1.1"),)))
        # Two ports claim the same pod: neither is believed.
        database("add-port", "br-int", "tap4", "--", "set", "Interface", "tap4", *ovn)
        watching.until_told(lambda places: places.pods.get("shop/mail", Place()).interface is None)
        database("del-port", "tap4")
        watching.until_told(lambda places: places.pods.get("shop/mail", Place()).interface == "tap3")
        database("restart")
        database("del-port", "tap3")
        watching.until_told(lambda places: places.pods.keys() == {"shop/web", "shop/db"})


def test_the_database_is_the_backends(node: Callable[[str], None], database: Callable[..., None], tmp_path: Path) -> None:
    """A switch with sockets elsewhere is named once, to the backend."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/db.sock").symlink_to(tmp_path / "sock")
    watching = Watching(node, Vantage.SWITCH, backend="ovs", backend_options={"ovs": {"run_dir": str(tmp_path / "run")}})
    with watching:
        database("add-br", "br-int", "--", "add-port", "br-int", "tap1", "--", "set", "Interface", "tap1", "external_ids:iface-id=shop/web")
        watching.until_told(lambda places: places.pods == {"shop/web": Place("tap1")})
