"""`Rig`: a node with two pods, an API server with a cluster around them, and the agent in a process of its own between them."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from polyplane.plugins import load_backend
from polyplane_bench.cluster import Raw
from polyplane_bench.layouts import own_options, tidy
from polyplane_bench.packets import CLIENT, SERVER, TOPOLOGY
from polyplane_bench.traffic import PORT, cpu_of
from polyplane_conformance import netns
from polyplane_conformance.apiserver import ApiServer
from polyplane_conformance.sandbox import Sandbox, Wiring

#: Remote pods, and the groups of ten they are in: whom the policies admit.
REMOTE: Final = 1000
GROUPS: Final = REMOTE // 10
#: Pods of this node besides client and server.
LOCAL: Final = 108
_NAMESPACE: Final = "bench"
_KIT: Final = Path(__file__).parents[1]
_PATIENCE: Final = 300.0


class Apply(NamedTuple):
    """One apply of the agent: when it was done, how long it took, native operations."""

    at: float
    seconds: float
    operations: int


class Rig:
    """Build it with `Rig.build`; a context manager. The agent starts with `start`."""

    def __init__(self, backend: str, stack: ExitStack, *, settings: dict[str, Any] | None = None) -> None:
        self.backend = backend
        self._stack = stack
        self._settings = settings or {}
        wiring = Wiring.BRIDGE if backend == "ovs" else Wiring.ROUTED
        self.sandbox: Final = stack.enter_context(Sandbox.build(TOPOLOGY, wiring))
        stack.callback(tidy, self.sandbox)
        self.server: Final = stack.enter_context(ApiServer())
        self._directory: Final = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._kubeconfig: Final = self.server.kubeconfig(self._directory / "kubeconfig")
        name, _, variant = backend.partition("-")
        options = self.sandbox.backend_options() | own_options(self.sandbox, variant)
        self._config = {"backend": name, "backend_options": {name: options}, "node": TOPOLOGY.node.name}
        self._config |= {"source_options": {"kubernetes": {"kubeconfig": str(self._kubeconfig)}}, **self._settings}
        stack.callback(lambda: load_backend(name, options).teardown())
        self._agent: subprocess.Popen[str] | None = None
        stack.callback(self.kill)
        self.applies: list[Apply] = []
        self._applying = False
        self._news = threading.Condition()
        self.probe: Final = stack.enter_context(Probe(self.sandbox, PORT))
        #: Asks for something else, to see from outside when a change has arrived.
        self.marker: Final = stack.enter_context(Probe(self.sandbox, PORT + 1))

    @classmethod
    @contextmanager
    def build(cls, backend: str, policies: int, *, settings: dict[str, Any] | None = None) -> Iterator[Self]:
        """Build a rig with so many policies on the node's other pods; everything is removed at the end."""
        with ExitStack() as stack:
            rig = cls(backend, stack, settings=settings)
            for raw in rig.background(policies):
                rig.put(raw)
            yield rig

    # --- the cluster

    def put(self, raw: Raw) -> None:
        """Write an object to the API server."""
        self.server.cluster.put(raw)

    def remove(self, raw: Raw) -> None:
        """Delete an object from the API server."""
        self.server.cluster.remove(raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"])

    def background(self, policies: int) -> Iterator[Raw]:
        """Yield what is there before anything is measured: nodes, pods, a policy that isolates the server, so many others."""
        yield from (dict(manifest) for manifest in self.sandbox.manifests())
        yield from (self.remote(number) for number in range(REMOTE))
        yield from (self.local(number) for number in range(LOCAL))
        yield policy("isolate-server", {"bench/pod": "server"}, None)
        for number in range(policies):
            peers = {"group": f"g{number % GROUPS}"}
            yield policy(f"policy-{number:05}", {"bench/pod": f"local-{number % LOCAL}"}, peers, port=10_000 + number % 50_000)

    def remote(self, number: int, *, group: int | None = None, generation: int = 0, crowd: str = "") -> Raw:
        """Return a pod of another node; each ``generation`` has an address of its own."""
        labels = {"group": f"g{number % GROUPS if group is None else group}", **({"crowd": crowd} if crowd else {})}
        return pod(f"remote-{number}", f"10.{80 + generation}.{number >> 8}.{number & 255}", "elsewhere", labels)

    def local(self, number: int) -> Raw:
        """Return a pod of this node that is nothing but an address."""
        return pod(f"local-{number}", f"10.77.{number >> 8}.{number & 255}", TOPOLOGY.node.name, {"bench/pod": f"local-{number}"})

    def client(self, **labels: str) -> Raw:
        """Return the client with other labels."""
        self.sandbox.relabel_pod(CLIENT.id, {"bench/pod": "client", **labels})
        return dict(self.sandbox.pod_manifest(CLIENT.id))

    # --- the agent

    @property
    def pid(self) -> int:
        """Process id of the agent."""
        assert self._agent is not None
        return self._agent.pid

    def start(self) -> Apply:
        """Start the agent; return its first apply, with which everything is in force."""
        before = len(self.applies)
        argv = [sys.executable, "-m", "polyplane_bench.agent_child", json.dumps(self._config), "begun"]
        self._agent = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(_KIT)}, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self._agent,), daemon=True).start()
        self.wait(lambda: len(self.applies) > before)
        return self.applies[before]

    def kill(self) -> None:
        """Kill the agent the hard way."""
        agent, self._agent, self._applying = self._agent, None, False
        if agent is not None:
            agent.kill()
            agent.wait()
            assert agent.stdout is not None
            agent.stdout.close()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for something that an apply brings about."""
        with self._news:
            if not self._news.wait_for(lambda: condition() or self._ended(), _PATIENCE) or self._ended():
                raise RuntimeError(f"{self.backend}: the agent {'ended' if self._ended() else 'did not apply in time'}")

    def settle(self, quiet: float = 1.5) -> Apply:
        """Wait until nothing has been applied for a while from now on; return the last apply."""
        began = time.monotonic()
        while self._applying or time.monotonic() < max(began, self.applies[-1].at) + quiet:
            time.sleep(0.05)
        return self.applies[-1]

    def cpu(self) -> float:
        """Return the CPU seconds of the agent so far, and of the commands it has started that have ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return cpu_of(self.pid) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def _ended(self) -> bool:
        return self._agent is not None and self._agent.poll() is not None

    def _read(self, agent: subprocess.Popen[str]) -> None:
        assert agent.stdout is not None
        try:
            for line in agent.stdout:
                fact = json.loads(line)
                with self._news:
                    self._applying = "begun" in fact
                    if not self._applying:
                        self.applies.append(Apply(**fact))
                    self._news.notify_all()
        except ValueError:
            pass  # closed by kill
        with self._news:
            self._news.notify_all()


class Probe:
    """Sends numbered datagrams from the client to the server and sees which arrive."""

    #: Seconds between two datagrams, and without one before the way counts as closed.
    EVERY = 0.0004
    CLOSED = 0.03

    def __init__(self, sandbox: Sandbox, port: int) -> None:
        with netns.inside(sandbox.netns(SERVER.id)):
            self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._in.bind((SERVER.addresses[0], port))
        self._in.settimeout(0)
        with netns.inside(sandbox.netns(CLIENT.id)):
            self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._out.connect((SERVER.addresses[0], port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._out.close()

    def send(self) -> None:
        """Send one datagram with the time in it."""
        self._out.send(struct.pack("d", time.monotonic()))

    def received(self) -> list[float]:
        """Return when the datagrams that have arrived meanwhile were sent."""
        times: list[float] = []
        try:
            while True:
                times.append(struct.unpack("d", self._in.recv(64))[0])
        except BlockingIOError:
            return times

    def until_open(self, limit: float = _PATIENCE) -> float:
        """Probe until a datagram arrives; return when it was sent."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            self.send()
            if times := self.received():
                return times[0]
            time.sleep(self.EVERY)
        raise RuntimeError("the way does not open")

    def until_closed(self, limit: float = _PATIENCE) -> float:
        """Probe until none arrives for a while; return when the last that did was sent."""
        last = time.monotonic()
        end = last + limit
        while time.monotonic() < end:
            self.send()
            if times := self.received():
                last = times[-1]
            elif time.monotonic() - last > self.CLOSED:
                return last
            time.sleep(self.EVERY)
        raise RuntimeError("the way does not close")

    @contextmanager
    def watching(self) -> Iterator[Counted]:
        """Probe in the background while the body runs; yield what is sent and what arrives, complete at the end."""
        counted, stop = Counted(), threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.send()
                counted.sent += 1
                counted.arrived += len(self.received())
                time.sleep(0.001)
            time.sleep(0.2)
            counted.arrived += len(self.received())

        self.received()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield counted
        finally:
            stop.set()
            thread.join()


class Counted:
    """Datagrams sent and arrived."""

    def __init__(self) -> None:
        self.sent = self.arrived = 0


class Bustle:
    """Changes something 200 times a second, in the background: other pods move between groups that policies admit."""

    def __init__(self, rig: Rig, rate: float) -> None:
        self._rig, self._pause = rig, 1 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._chance = random.Random(2)  # noqa: S311 (no secret)
        self.events = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            number = self._chance.randrange(REMOTE // 2, REMOTE)
            self._rig.put(self._rig.remote(number, group=self._chance.randrange(GROUPS)))
            self.events += 1
            due += self._pause
            time.sleep(max(0.0, due - time.monotonic()))


# --- objects -----------------------------------------------------------------------------------------------------------


def pod(name: str, address: str, node: str, labels: dict[str, str]) -> Raw:
    """Return a running pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": _NAMESPACE, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


def policy(name: str, subject: dict[str, str], peers: dict[str, str] | None, *, port: int = PORT) -> Raw:
    """Return a policy that admits to UDP and TCP of a port the pods with these labels; with None it only isolates."""
    spec: Raw = {"podSelector": {"matchLabels": subject}, "policyTypes": ["Ingress"]}
    if peers is not None:
        ports = [{"port": port, "protocol": protocol} for protocol in ("TCP", "UDP")]
        spec["ingress"] = [{"from": [{"podSelector": {"matchLabels": peers}}], "ports": ports}]
    metadata = {"namespace": _NAMESPACE, "name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
