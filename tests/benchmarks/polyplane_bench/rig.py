"""`Rig`: a node with two pods, an API server with a cluster around them, and the agent in a process of its own between them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

from polyplane.plugins import load_backend
from polyplane_bench.cluster import Raw
from polyplane_bench.layouts import own, tidy
from polyplane_bench.packets import CLIENT, SERVER, TOPOLOGY, wiring_of
from polyplane_bench.probe import Probe
from polyplane_bench.traffic import PORT, cpu_of
from polyplane_conformance.apiserver import ApiServer
from polyplane_conformance.sandbox import Sandbox

#: Remote pods, and the groups of ten they are in: whom the policies admit.
REMOTE: Final = 1000
GROUPS: Final = REMOTE // 10
#: Ports of the server besides that of the traffic: one that policies open as a sign, one that is open to the client throughout.
MARKER: Final = PORT + 1
ALWAYS: Final = PORT + 2
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

    def __init__(self, backend: str, stack: ExitStack) -> None:
        self.backend = backend
        self.sandbox: Final = stack.enter_context(Sandbox.build(TOPOLOGY, wiring_of(backend)))
        stack.callback(tidy, self.sandbox)
        self.server: Final = stack.enter_context(ApiServer())
        kubeconfig = self.server.kubeconfig(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "kubeconfig")
        name, options = own(self.sandbox, backend)
        self._config = {"backend": name, "backend_options": {name: options}, "node": TOPOLOGY.node.name}
        self._config |= {"source_options": {"kubernetes": {"kubeconfig": str(kubeconfig)}}}
        stack.callback(lambda: load_backend(name, options).teardown())
        self._agent: subprocess.Popen[str] | None = None
        stack.callback(self.kill)
        self.applies: list[Apply] = []
        self._applying = False
        self._news = threading.Condition()
        always = stack.enter_context(Probe(self.sandbox, CLIENT, SERVER, ALWAYS))
        self.probe: Final = stack.enter_context(Probe(self.sandbox, CLIENT, SERVER, PORT, beside=always))
        #: Asks for something else, to see from outside when a change has arrived.
        self.marker: Final = stack.enter_context(Probe(self.sandbox, CLIENT, SERVER, MARKER, beside=always))

    @classmethod
    @contextmanager
    def build(cls, backend: str, policies: int) -> Iterator[Self]:
        """Build a rig with so many policies on the node's other pods; everything is removed at the end."""
        with ExitStack() as stack:
            rig = cls(backend, stack)
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
        """Yield what is there before anything is measured: nodes, pods, a server closed but for one port, and so many policies of others."""
        yield from (dict(manifest) for manifest in self.sandbox.manifests())
        yield from (self.remote(number) for number in range(REMOTE))
        yield from (self.local(number) for number in range(LOCAL))
        yield policy("isolate-server", {"bench/pod": "server"}, None)
        yield policy("always", {"bench/pod": "server"}, {"bench/pod": "client"}, port=ALWAYS)
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
        argv = [sys.executable, "-m", "polyplane_bench.agent_child", json.dumps(self._config)]
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


class Bustle:
    """Changes something 200 times a second, in the background: other pods move between groups that policies admit."""

    def __init__(self, rig: Rig, rate: float) -> None:
        self._rig, self._pause = rig, 1 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._chance = random.Random(2)  # noqa: S311 (no secret)

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
