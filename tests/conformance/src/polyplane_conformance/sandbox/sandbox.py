"""`Sandbox`: a topology made of network namespaces, with a prober inside."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from polyplane_conformance import netns
from polyplane_conformance.probe.client import Prober, Stream
from polyplane_conformance.probe.model import Probe, Result, Traffic
from polyplane_conformance.probe.queues import Queue
from polyplane_conformance.probe.rounds import DEFAULT_SETTINGS, Settings
from polyplane_conformance.reachability import Reachability
from polyplane_conformance.sandbox import bridges, namespaces, orders, processes, services, wiring
from polyplane_conformance.sandbox.barrage import Barrage
from polyplane_conformance.sandbox.manifests import Manifest, manifests, pod_manifest
from polyplane_conformance.sandbox.namespaces import SandboxError
from polyplane_conformance.sandbox.services import Service, Translator
from polyplane_conformance.sandbox.topology import NodeSpec, PodSpec, Topology, Wiring

#: How hard to try. A bridge's switch is a process that has to get its share of a busy machine.
SETTINGS: Final[Mapping[Wiring, Settings]] = {
    Wiring.ROUTED: DEFAULT_SETTINGS,
    Wiring.BRIDGE: DEFAULT_SETTINGS._replace(patience=15.0),
}
#: Probes at a time. What a pod sends until the switch gets its share must find room in the queue of its port, some 270 packets.
AT_ONCE: Final[Mapping[Wiring, int]] = {Wiring.ROUTED: 3000, Wiring.BRIDGE: 240}


class Sandbox:
    """Namespaces, links, servers and probes of one topology. Build it with `Sandbox.build`; a context manager.

    Everything is gone after `close`, at the end of the process, and also when the process is killed: the prober removes the
    namespaces then, and `namespaces.sweep`, which every build begins with, those whose prober was killed as well.
    """

    def __init__(self, topology: Topology, wiring: Wiring = Wiring.ROUTED) -> None:
        self.topology = topology
        self.wiring = wiring
        #: The switch of each node whose pods are on a bridge.
        self.switches: dict[str, bridges.Switch] = {}
        #: Seconds that `build` took.
        self.built_in = 0.0
        self._prefix = namespaces.new_prefix()
        self._daemons = processes.Daemons()
        self._prober = Prober(self._prefix)
        self._closed = False
        atexit.register(self.close)

    @classmethod
    def build(cls, topology: Topology, wiring: Wiring = Wiring.ROUTED) -> Sandbox:
        """Build the namespaces, wire them, start all servers.

        :raises SandboxError: without root, without ``ip``, or with what the kernel refused; nothing is left behind then
        """
        if os.geteuid() != 0:
            raise SandboxError("a sandbox makes network namespaces, which needs root; run this with sudo")
        began = time.monotonic()
        namespaces.sweep()
        namespaces.sweep_directories(bridges.RUN_DIRECTORY)
        sandbox = cls(topology, wiring)
        try:
            sandbox._make()
        except BaseException:
            sandbox.close()
            raise
        sandbox.built_in = time.monotonic() - began
        return sandbox

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._daemons.close()
        self._prober.close()
        for name in netns.names():
            if name.startswith(self._prefix):
                netns.delete(name)
        bridges.remove_directories(self._prefix)

    # --- construction --------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        topology = self.topology
        pods = [pod for pod in topology.pods if not pod.host_network]
        leaves = [*(pod.id for pod in pods), *(host.name for host in topology.hosts)]
        nodes = [node.name for node in topology.nodes]
        namespaces.create(self._name(what) for what in (*nodes, *leaves))
        for what in (*nodes, *leaves):
            self._prepare(what, wiring.NODE_SYSCTLS if what in nodes else wiring.LEAF_SYSCTLS)
        self._start_switches()
        others = topology.machines[1:]
        first = self._base(topology.node)
        for other in others:
            first += wiring.join(topology.node, other, self._name(other.name))
        for pod in pods:
            first += self._attachment(pod) if topology.node_of(pod) is topology.node else wiring.remote_routes(topology, pod)
        namespaces.ip_batch(self._name(topology.node.name), first + wiring.default_routes(topology))
        batches: dict[str | None, list[str]] = {self._name(other.name): wiring.joined(other, topology.node) for other in others}
        for node in topology.nodes[1:]:
            lines = self._base(node) + batches[self._name(node.name)]
            batches[self._name(node.name)] = lines + [line for pod in topology.pods_of(node.name) for line in self._attachment(pod)]
        namespaces.ip_batches(batches)
        namespaces.ip_batches({self._name(pod.id): self._pod_lines(pod) for pod in pods})
        for node in topology.nodes:
            self._plug_in(node, topology.pods_of(node.name))
        self._prober.enter((what, self.netns(what)) for what in (*nodes, *leaves))
        served = [(pod.id, pod.ports) for pod in topology.pods]
        served += [(part.name, part.ports) for part in topology.machines]
        self._prober.serve(
            (orders.place_of(self.topology, name), name, [(port.protocol, port.number) for port in ports]) for name, ports in served
        )

    def _prepare(self, what: str, sysctls: dict[str, str]) -> None:
        with netns.inside(self.netns(what)):
            netns.write_sysctls(sysctls)

    def _attachment(self, pod: PodSpec) -> list[str]:
        node = self.topology.node_of(pod)
        if node.name in self.switches:
            return bridges.attach_pod(pod, self._name(pod.id)) + bridges.routes(node, pod, pod.addresses)
        return wiring.attach_pod(node, pod, self._name(pod.id))

    def _base(self, node: NodeSpec) -> list[str]:
        return wiring.base(node) + (bridges.gateway_lines() if node.name in self.switches else [])

    def _pod_lines(self, pod: PodSpec) -> list[str]:
        bridged = self.topology.node_of(pod).name in self.switches
        return wiring.pod_lines(pod) + (bridges.neighbour_lines(self.topology, pod) if bridged else [])

    def _start_switches(self) -> None:
        if self.wiring is Wiring.BRIDGE:
            for node in self.topology.nodes:
                directory = bridges.RUN_DIRECTORY / f"{self._prefix}{node.name}"
                switch = self.switches[node.name] = bridges.Switch(self.netns(node.name), directory, self._daemons)
                switch.start()

    def _plug_in(self, node: NodeSpec, pods: Sequence[PodSpec]) -> None:
        """Make pods ports of their node's bridge, if it has one."""
        switch = self.switches.get(node.name)
        if switch is not None:
            for pod in pods:
                bridges.compute_checksums(self.netns(pod.id))
            switch.attach(pods)

    def _tell_neighbours(self) -> None:
        """Tell pods on bridges who is a neighbour by now."""
        if self.switches:
            pods = [pod for node in self.topology.nodes for pod in self.topology.pods_of(node.name)]
            namespaces.ip_batches({self._name(pod.id): bridges.neighbour_lines(self.topology, pod) for pod in pods})

    def _name(self, what: str) -> str:
        return f"{self._prefix}{namespaces.label(what)}"

    # --- what is where -------------------------------------------------------------------------------------------------

    @property
    def node_netns(self) -> Path:
        """Path of the namespace of the node under test, as backends take it."""
        return self.netns(self.topology.node.name)

    def netns(self, name: str) -> Path:
        """Path of the namespace of a pod, node or host; a host-network pod's is its node's."""
        return netns.NETNS_DIRECTORY / self._name(orders.place_of(self.topology, name))

    def backend_options(self, node: str = "") -> dict[str, object]:
        """Return what a backend must be told to work on a node (empty: the one under test), by the kind of wiring.

        ``routed``: ``netns``. ``bridge``: ``bridge`` and ``run_dir`` of the node's switch, and in ``service_cidrs`` the addresses
        that the node translates, separated by commas.
        """
        node = node or self.topology.node.name
        if node in self.switches:
            return {"bridge": bridges.BRIDGE, "run_dir": str(self.switches[node].directory), "service_cidrs": ",".join(bridges.SERVICES)}
        return {"netns": str(self.netns(node))}

    def manifests(self, *, interfaces: bool = True) -> list[Manifest]:
        """Return Namespace, Node and Pod objects of the topology as it is now."""
        return manifests(self.topology, interfaces=interfaces)

    def pod_manifest(self, name: str) -> Manifest:
        """Return one pod's object as it is now."""
        part = self.topology.find(name)
        if not isinstance(part, PodSpec):
            raise SandboxError(f"{name} is no pod")
        return pod_manifest(self.topology, part)

    # --- changes -------------------------------------------------------------------------------------------------------

    def add_pod(self, pod: PodSpec) -> None:
        """Add a pod; its addresses may be those of a pod that has been removed.

        :raises TopologyError: when it does not fit in
        """
        self.topology = self.topology.with_pods([*self.topology.pods, pod])
        if not pod.host_network:
            node = self.topology.node_of(pod)
            namespaces.create([self._name(pod.id)])
            self._prepare(pod.id, wiring.LEAF_SYSCTLS)
            namespaces.ip_batch(self._name(node.name), self._attachment(pod))
            batches: dict[str | None, list[str]] = {self._name(pod.id): self._pod_lines(pod)}
            if node is not self.topology.node:
                batches[self._name(self.topology.node.name)] = wiring.remote_routes(self.topology, pod)
            namespaces.ip_batches(batches)
            namespaces.await_addresses(self._name(pod.id), pod.addresses)
            self._plug_in(node, [pod])
            self._tell_neighbours()
            self._prober.enter([(pod.id, self.netns(pod.id))])
        self._prober.serve([(orders.place_of(self.topology, pod.id), pod.id, [(port.protocol, port.number) for port in pod.ports])])

    def remove_pod(self, name: str) -> None:
        """Remove a pod with its namespace and interface; host-network pods cannot be removed."""
        pod = self._own_pod(name)
        node = self.topology.node_of(pod)
        self._prober.leave(pod.id)
        bridged = self.switches.get(node.name)
        if bridged is not None:
            bridged.detach(pod)
            namespaces.ip_batch(self._name(node.name), bridges.routes(node, pod, pod.addresses, verb="del"))
        # the namespace goes some time after its name; the interface, and with it the routes, must be gone at once
        namespaces.ip_batch(self._name(node.name), [f"link del {pod.host_interface}"])
        if node is not self.topology.node:
            namespaces.ip_batch(self._name(self.topology.node.name), wiring.remote_routes(self.topology, pod, verb="del"))
        netns.delete(self._name(pod.id))
        self.topology = self.topology.with_pods(other for other in self.topology.pods if other is not pod)

    def renumber_pod(self, name: str, addresses: Sequence[str]) -> None:
        """Give a pod other addresses, as after a restart of its sandbox; open connections of the old ones end."""
        old = self._own_pod(name)
        new = replace(old, addresses=tuple(addresses))
        topology = self.topology.with_pods(new if pod is old else pod for pod in self.topology.pods)
        node = topology.node_of(new)
        routes = bridges.routes if node.name in self.switches else wiring.pod_routes
        on_node = routes(node, old, old.addresses, verb="del") + routes(node, new, new.addresses)
        namespaces.ip_batch(self._name(node.name), on_node)
        if node is not topology.node:
            there = wiring.remote_routes(self.topology, old, verb="del") + wiring.remote_routes(topology, new)
            namespaces.ip_batch(self._name(topology.node.name), there)
        in_pod = wiring.pod_addresses(old.addresses, verb="del") + [line for line in wiring.pod_lines(new) if not line.startswith("link ")]
        namespaces.ip_batch(self._name(name), in_pod)
        namespaces.await_addresses(self._name(name), new.addresses)
        self.topology = topology
        self._tell_neighbours()

    def relabel_pod(self, name: str, labels: Mapping[str, str]) -> None:
        """Give a pod other labels in its manifest."""
        pod = self.topology.find(name)
        if not isinstance(pod, PodSpec):
            raise SandboxError(f"{name} is no pod")
        self.topology = self.topology.with_pods(replace(other, labels=labels) if other is pod else other for other in self.topology.pods)

    def relabel_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Give a Kubernetes namespace other labels in its manifest."""
        self.topology = replace(self.topology, namespaces={**self.topology.namespaces, name: labels})

    def _own_pod(self, name: str) -> PodSpec:
        pod = self.topology.find(name)
        if not isinstance(pod, PodSpec) or pod.host_network:
            raise SandboxError(f"{name} is no pod with a namespace of its own")
        return pod

    def add_service(self, service: Service, translator: Translator = Translator.NFT) -> None:
        """Translate a service address on every node, as kube-proxy does.

        :raises SandboxError: with what the tool said
        """
        for node in self.topology.nodes:
            if translator is Translator.NFT:
                self.run(node.name, ["nft", "-f", "-"], text=services.nft_text(service))
            else:
                for command in services.iptables_commands(service):
                    self.run(node.name, command)

    # --- probes --------------------------------------------------------------------------------------------------------

    def probe(self, probes: Iterable[Probe], settings: Settings | None = None) -> list[Result]:
        """Run probes, all at once, to their verdicts; results in the same order.

        :raises TopologyError: for an unknown name
        :raises SandboxError: where source or destination has no address of the family
        """
        wanted = list(probes)
        return self._prober.run(
            [orders.order(self.topology, probe) for probe in wanted],
            settings or SETTINGS[self.wiring],
            queues=self._queues(wanted),
            at_once=AT_ONCE[self.wiring],
        )

    def _queues(self, probes: Iterable[Probe]) -> Iterator[Queue]:
        """Yield the ports of bridges where packets of these probes wait until the switch comes by."""
        for name in sorted({name for probe in probes for name in (probe.source, probe.destination)}):
            part = self.topology.find(name)
            if isinstance(part, PodSpec) and not part.host_network and (node := self.topology.node_of(part).name) in self.switches:
                yield Queue(node, part.addresses)

    def matrix(
        self,
        traffic: Iterable[Traffic] | None = None,
        *,
        sources: Iterable[str] | None = None,
        destinations: Iterable[str] | None = None,
        settings: Settings | None = None,
    ) -> Reachability:
        """Probe every source against every destination.

        Without ``traffic``: whatever the destinations serve, in all families, and ICMP. Without ``sources`` and
        ``destinations``: all pods. Pairs without a common family and traffic that a destination does not serve are left out.
        """
        pods = [pod.id for pod in self.topology.pods]
        rows, columns = tuple(pods if sources is None else sources), tuple(pods if destinations is None else destinations)
        kinds = tuple(dict.fromkeys(orders.all_traffic(self.topology, columns) if traffic is None else traffic))
        cells = orders.cells(self.topology, rows, columns, kinds)
        results = self.probe((Probe(source=cell.source, destination=cell.destination, traffic=cell.traffic) for cell in cells), settings)
        return Reachability(sources=rows, destinations=columns, traffic=kinds, cells=dict(zip(cells, results, strict=True)))

    def stream(self, probe: Probe, *, interval: float = 0.05, pushed: bool = False) -> Stream:
        """Open a lasting TCP or UDP conversation, a packet every ``interval`` seconds; ``pushed``: only the server sends."""
        return self._prober.stream(orders.order(self.topology, probe), interval=interval, pushed=pushed)

    def barrage(self, expected: Mapping[Probe, bool], rate_per_second: float = 100.0, *, timeout: float = 0.8) -> Barrage:
        """Probe continuously, round and round, in the background: each probe one packet, with whether it should pass.

        ``timeout`` stays below the second after which the kernel repeats a lost SYN, so that a lost packet is a lost probe.
        """
        return Barrage(
            self._prober, expected, [orders.order(self.topology, probe) for probe in expected], rate=rate_per_second, timeout=timeout
        )

    # --- processes -----------------------------------------------------------------------------------------------------

    def run(self, where: str, argv: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None) -> str:
        """Run a command in the namespace of a pod, node or host; return its output.

        :raises SandboxError: when it fails, with what it said
        """
        return processes.run(self.netns(where), argv, text=text, env=self._environment(where, env))

    def _environment(self, where: str, env: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """On a node with a switch, have Open vSwitch's tools speak to that one."""
        switch = self.switches.get(where)
        return env if switch is None else {**(env or os.environ), **switch.environment}

    def forget_connections(self) -> None:
        """Delete every connection that the node under test knows, in its kernel and in its switch."""
        self.run(self.topology.node.name, ["conntrack", "-F"])
        for switch in self.switches.values():
            switch.forget_connections()

    def spawn(
        self, where: str, argv: Sequence[str], *, output: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a daemon there; it ends with the sandbox, or with us."""
        return self._daemons.spawn(self.netns(where), argv, output=output, env=self._environment(where, env))

    @contextlib.contextmanager
    def capture(self, where: str, into: Path, expression: str = "") -> Iterator[Path]:
        """Record packets there into a pcap file while the body runs (needs ``tcpdump``)."""
        with processes.capture(self._daemons, self.netns(where), into, expression):
            yield into

    def node_of(self, name: str) -> NodeSpec:
        """Return the node that a pod runs on."""
        pod = self.topology.find(name)
        if not isinstance(pod, PodSpec):
            raise SandboxError(f"{name} is no pod")
        return self.topology.node_of(pod)
