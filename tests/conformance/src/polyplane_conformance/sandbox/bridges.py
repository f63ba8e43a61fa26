"""Pods as ports of an Open vSwitch bridge: the wiring ``bridge``, besides ``routed``.

Every node gets an Open vSwitch of its own: run directory, database and sockets in a directory that is named like the sandbox's
namespaces, the userspace datapath (no kernel module, no system service), and one bridge, ``br-int``. Its port ``gw0`` leads to
the node; whatever is not a neighbour goes through there, service addresses too. Pods of one /24 or /112 are neighbours and
reach each other directly. Who forwards is the bridge itself, by one flow of its own at priority 0.

::

 x/a ── pp-x_a ─┐
 x/b ── pp-x_b ─┤ br-int ── gw0 ── node ── to-node-2, to-outside
 y/a ── pp-y_a ─┘
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import ipaddress
import os
import re
import shutil
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from subprocess import Popen
from typing import Final

from polyplane_conformance import netns
from polyplane_conformance.probe.model import family_of
from polyplane_conformance.sandbox import processes
from polyplane_conformance.sandbox.namespaces import SandboxError
from polyplane_conformance.sandbox.topology import NodeSpec, PodSpec, Topology
from polyplane_conformance.sandbox.wiring import GATEWAY4, GATEWAY6, pod_routes

BRIDGE: Final = "br-int"
GATEWAY: Final = "gw0"
#: What the node translates; services of a sandbox have addresses in here.
SERVICES: Final = ("10.96.0.0/12", "fd96::/64")
#: Where the switches keep their files, a directory for each sandbox.
RUN_DIRECTORY: Final = Path("/run/polyplane-sandbox")

_SCHEMA: Final = Path("/usr/share/openvswitch/vswitch.ovsschema")
_QUIET: Final = ("-vconsole:off", "-vsyslog:off", "-vfile:warn")
#: Seconds that a daemon may take to open its socket, or to answer; it takes a tenth of one.
_PATIENCE: Final = 60
_NEIGHBOURS: Final = {4: 24, 6: 112}


def mac_of(pod: PodSpec) -> str:
    """Return the MAC address of a pod: made of its name, locally administered."""
    digest = hashlib.blake2b(pod.id.encode(), digest_size=5).digest()
    return ":".join(["0a", *(f"{byte:02x}" for byte in digest)])


def listens(path: Path) -> bool:
    """Whether a daemon takes connections at a path. That its socket is there is not enough: it is bound before it listens."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


class Switch:
    """One node's Open vSwitch."""

    def __init__(self, node: Path, directory: Path, daemons: processes.Daemons) -> None:
        self._node: Final = node
        self._daemons: Final = daemons
        #: Where its sockets are.
        self.directory: Final = directory
        #: What makes Open vSwitch's tools speak to this one.
        self.environment: Final[Mapping[str, str]] = {
            name: str(directory) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        }
        self._processes: dict[str, Popen[str]] = {}

    def start(self) -> None:
        """Start both daemons and make the bridge.

        :raises SandboxError: Open vSwitch is not installed, or does not start
        """
        if shutil.which("ovs-vswitchd") is None or not _SCHEMA.exists():
            raise SandboxError("pods on a bridge need Open vSwitch: apt install openvswitch-switch (no service needs to run)")
        self.directory.mkdir(parents=True, mode=0o700)
        self.run("ovsdb-tool", "create", str(self.directory / "conf.db"), str(_SCHEMA))
        self.start_database()
        self.vsctl("--no-wait", "init")
        self.start_forwarding(wait=False)
        self.vsctl(
            "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure",
            "--", "add-port", BRIDGE, GATEWAY, "--", "set", "interface", GATEWAY, "type=internal",
        )  # fmt: skip
        self._await(self.directory / f"{BRIDGE}.mgmt")
        self.run("ovs-ofctl", "add-flow", BRIDGE, "priority=0,actions=NORMAL")

    def start_database(self) -> None:
        """Start ovsdb-server."""
        remote = f"--remote=punix:{self.directory}/db.sock"
        self._spawn("ovsdb-server", [str(self.directory / "conf.db"), remote], self.directory / "db.sock")

    def start_forwarding(self, *, wait: bool = True) -> None:
        """Start ovs-vswitchd; with ``wait`` return when the bridge is there (its flows are not)."""
        self._spawn("ovs-vswitchd", [f"unix:{self.directory}/db.sock"], self.directory / f"{BRIDGE}.mgmt" if wait else None)

    def kill(self, daemon: str) -> None:
        """Kill ``ovsdb-server`` or ``ovs-vswitchd`` the hard way."""
        process = self._processes.pop(daemon)
        process.kill()
        process.wait()
        for left in ("db.sock",) if daemon == "ovsdb-server" else (f"{BRIDGE}.mgmt", f"{BRIDGE}.snoop"):
            (self.directory / left).unlink(missing_ok=True)

    def _spawn(self, daemon: str, arguments: list[str], until: Path | None) -> None:
        argv = [daemon, *arguments, "--no-chdir", "--pidfile", f"--log-file={self.directory}/{daemon}.log", *_QUIET]
        self._processes[daemon] = self._daemons.spawn(
            self._node, argv, output=self.directory / f"{daemon}.out", env={**os.environ, **self.environment}
        )
        if until is not None:
            self._await(until)

    def _await(self, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not listens(path):
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                said = "".join(file.read_text(encoding="utf-8", errors="replace") for file in sorted(self.directory.glob("*.out")))
                raise SandboxError(f"Open vSwitch in {self._node.name} does not start ({', '.join(dead) or path.name}): {said[-500:]}")
            time.sleep(0.005)

    # --- use

    def run(self, *argv: str) -> str:
        """Run one of Open vSwitch's tools on this switch; return its output.

        :raises SandboxError: when it fails, with what it said
        """
        return processes.run(self._node, argv, env={**os.environ, **self.environment})

    def vsctl(self, *argv: str) -> None:
        """Change the configuration and wait until it is in force.

        :raises SandboxError: with what ovs-vsctl or ovs-vswitchd said
        """
        self.run("ovs-vsctl", f"--timeout={_PATIENCE}", *argv)

    def attach(self, pods: Iterable[PodSpec]) -> None:
        """Make ports of the pods' interfaces, which exist already.

        :raises SandboxError: one cannot be a port; ovs-vsctl itself would end well
        """
        command: list[str] = []
        names = []
        for pod in pods:
            name = pod.host_interface
            names.append(name)
            ids = (f'external_ids:iface-id="{pod.id}"', f'external_ids:attached-mac="{mac_of(pod)}"')
            command += ["--", "add-port", BRIDGE, name, "--", "set", "interface", name, *ids]
        if not command:
            return
        self.vsctl(*command[1:])
        for line in self.run(
            "ovs-vsctl", f"--timeout={_PATIENCE}", "--format=csv", "--no-headings", "--columns=name,ofport,error", "list", "interface"
        ).splitlines():
            name, number, error = line.split(",", 2)
            if name.strip('"') in names and not re.fullmatch(r"[1-9]\d*", number):
                raise SandboxError(f"{name} is no port of {BRIDGE}: {error.strip() or number}")

    def detach(self, pod: PodSpec) -> None:
        """Remove a pod's port, before its interface goes."""
        self.vsctl("--if-exists", "del-port", BRIDGE, pod.host_interface)

    def forget_connections(self) -> None:
        """Empty the connection tracking of the userspace datapath."""
        self.run("ovs-appctl", "dpctl/flush-conntrack")


def remove_directories(prefix: str) -> None:
    """Remove what a sandbox's switches have left on disk."""
    with contextlib.suppress(FileNotFoundError):
        for path in RUN_DIRECTORY.iterdir():
            if path.name.startswith(prefix):
                shutil.rmtree(path, ignore_errors=True)


# --- ip's lines, in place of those that `wiring` has for routed pods ------------------------------------------------------


def patient_neighbours(interface: str) -> list[str]:
    """Lines for either end: ask for neighbours in short intervals and often, for a question may be lost in front of a busy switch.

    The kernel asks three times, once a second; meanwhile a probe would have given up.
    """
    return [f"ntable change name {table} dev {interface} retrans 250 mcast_probes 40" for table in ("arp_cache", "ndisc_cache")]


def gateway_lines() -> list[str]:
    """Lines for a node: its end of the bridge. `wiring.base` has given it the pods' IPv4 gateway already."""
    return [f"link set {GATEWAY} up", f"addr add {GATEWAY6}/64 dev {GATEWAY} nodad", *patient_neighbours(GATEWAY)]


def attach_pod(pod: PodSpec, pod_netns: str) -> list[str]:
    """Lines for the pod's node: the veth, whose end here the node's kernel must leave to the switch.

    With the userspace datapath it sees every packet as well: it would answer for the gateway's address and take the traffic.
    """
    name = pod.host_interface
    return [
        f"link add {name} type veth peer name eth0 address {mac_of(pod)} netns {pod_netns}",
        f"link set {name} arp off addrgenmode none",
        f"link set {name} up",
    ]


def routes(node: NodeSpec, pod: PodSpec, addresses: Iterable[str], *, verb: str = "add") -> list[str]:
    """Lines for the pod's node: routes to its addresses, through the bridge."""
    return pod_routes(node, pod, addresses, verb=verb, interface=GATEWAY)


def neighbour_lines(topology: Topology, pod: PodSpec) -> list[str]:
    """Lines for the pod's own namespace: who is a neighbour, and who only looks like one because its node is another."""
    lines = patient_neighbours("eth0")
    node = topology.node_of(pod)
    for address in pod.addresses:
        family = family_of(address)
        network = ipaddress.ip_network(f"{address}/{_NEIGHBOURS[family]}", strict=False)
        lines.append(f"route replace {network} dev eth0{' scope link' if family == 4 else ''}")
        gateway = f"via {GATEWAY4}" if family == 4 else f"via {GATEWAY6}"
        for other in topology.pods:
            if other.host_network or topology.node_of(other) is node:
                continue
            lines += [f"route replace {far} {gateway} dev eth0" for far in other.addresses if ipaddress.ip_address(far) in network]
    return lines


# --- checksums -----------------------------------------------------------------------------------------------------------

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STXCSUM: Final = 0x17


def compute_checksums(pod: Path, interface: str = "eth0") -> None:
    """Have a pod's kernel fill in checksums (``ethtool -K eth0 tx off``): the userspace datapath passes on what it gets."""
    with netns.inside(pod), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        value = bytearray(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
        address = (ctypes.c_char * len(value)).from_buffer(value)
        request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(address))
        fcntl.ioctl(control, _SIOCETHTOOL, request)
