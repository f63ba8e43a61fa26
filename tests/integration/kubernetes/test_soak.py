"""A cluster that never rests, an API server that never stays well, and an agent that must hold.

Objects churn at random while connections break, versions are gone, answers are slow or cut off and the server restarts. At
each quiet point a fresh agent must find nothing to change: the kernel holds just what it would program. Ten seconds a backend,
or as long as ``POLYPLANE_TEST_SOAK`` says (600 for a release).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from following import pod, policy
from running import Agent

from polyplane.hookspecs import BACKENDS
from polyplane.plugins import list_plugins
from polyplane_conformance.apiserver import ApiServer
from polyplane_conformance.gaps import load_gaps
from polyplane_conformance.netns import inside
from polyplane_conformance.sandbox.lone import LoneNode, lone_node

SECONDS = float(os.environ.get("POLYPLANE_TEST_SOAK", "10"))
#: Seconds of churn between two quiet points.
ROUND = min(20.0, SECONDS / 2)
ENFORCING = sorted({info.name for info in list_plugins(BACKENDS)} - {"memory", "file"})
POLYPLANE = Path(sys.executable).with_name("polyplane")

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@pytest.fixture
def node(backend: str) -> Iterator[LoneNode]:
    with lone_node("soak", load_gaps(backend).wiring) as made:
        yield made


class Churn:
    """Random writes and random misbehaviour, the same for the same seed."""

    def __init__(self, server: ApiServer, seed: int) -> None:
        self.server, self.random = server, random.Random(seed)  # noqa: S311  # for reproducing, not for secrets
        self.pods: list[str] = []
        self.policies: list[str] = []
        self.number = 0

    def write(self) -> None:
        choice = self.random.random()
        cluster = self.server.cluster
        if choice < 0.35 and len(self.pods) < 60:
            self.number += 1
            self.pods.append(f"p{self.number}")
            cluster.put(self.pod(self.pods[-1]))
        elif choice < 0.5 and self.pods:
            cluster.remove("Pod", "shop", self.pods.pop(self.random.randrange(len(self.pods))))
        elif choice < 0.75 and self.pods:
            cluster.put(self.pod(self.random.choice(self.pods)))
        elif choice < 0.87 and len(self.policies) < 12:
            self.number += 1
            self.policies.append(f"rule{self.number}")
            cluster.put(self.policy(self.policies[-1]))
        elif choice < 0.93 and self.policies:
            cluster.remove("NetworkPolicy", "shop", self.policies.pop(self.random.randrange(len(self.policies))))
        elif self.policies:
            cluster.put(self.policy(self.random.choice(self.policies)))

    def pod(self, name: str) -> dict[str, Any]:
        number = int(name[1:])
        phase = self.random.choice(["Running"] * 8 + ["Succeeded", "Failed"])
        made = pod(name, phase=phase, address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", tier=self.random.choice("abc"))
        made["spec"]["nodeName"] = "node-1" if number % 3 else "node-2"
        return made

    def policy(self, name: str) -> dict[str, Any]:
        made = policy(name)
        made["spec"] = {
            "podSelector": {"matchLabels": {"tier": self.random.choice("abc")}},
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"tier": self.random.choice("abc")}}}],
                    "ports": [{"port": self.random.randrange(1, 9000), "protocol": self.random.choice(["TCP", "UDP"])}],
                }
            ],
        }
        return made

    def misbehave(self) -> None:
        server, faults = self.server, self.server.faults
        match self.random.randrange(9):
            case 0:
                server.disconnect()
            case 1:
                server.restart()
            case 2:
                server.cluster.compact()
                server.disconnect()
            case 3:
                faults.error_event(self.random.choice([410, 500]), times=self.random.randrange(1, 4))
                server.disconnect()
            case 4:
                faults.fail(self.random.choice([410, 429, 500, 503, 504]), times=self.random.randrange(1, 6))
                server.disconnect()
            case 5:
                faults.cut(self.random.randrange(2000), times=self.random.randrange(1, 4))
                server.disconnect()
            case 6:
                faults.delay, faults.piece = self.random.choice([0.0, 0.002]), 200
            case 7:
                server.stop()
                for _ in range(5):
                    self.write()
                server.start()
            case 8:
                server.bookmark()

    def heal(self) -> None:
        faults = self.server.faults
        faults.delay = 0.0
        faults._failures.clear()
        faults._cuts.clear()
        faults._errors.clear()


class Soaked(Agent):
    """The agent in a namespace, with short pauses."""

    def __init__(self, node: LoneNode, kubeconfig: Path, backend: str, log: Path) -> None:
        self.address, self.log = "127.0.0.1:9469", log
        self.node = node
        # Not by ip netns exec, which mounts a /sys of its own: what eBPF pins there would be gone with the process.
        self.prefix = [
            "nsenter",
            f"--net={node.path}",
            str(POLYPLANE),
            "run",
            "--kubeconfig",
            str(kubeconfig),
            "--node",
            "node-1",
        ]
        self.prefix += ["--backend", backend, "--log-format", "json"]
        self.prefix += [part for name, value in node.options.items() for part in ("--backend-option", f"{name}={value}")]
        env = {
            **os.environ,
            "POLYPLANE_SOURCE_OPTIONS__KUBERNETES__RETRY_MAX": "1",
            "POLYPLANE_SOURCE_OPTIONS__KUBERNETES__RETRY_FIRST": "0.1",
        }
        with log.open("w") as out:
            self.process = subprocess.Popen([*self.prefix, "--listen", self.address], stdout=out, stderr=out, env=env)

    def get(self, path: str) -> tuple[int, str]:
        with inside(self.node.path):
            return super().get(path)

    def quiet(self, server: ApiServer) -> dict[str, float]:
        """Wait until everything has been followed and nothing more happens."""
        mark = server.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mark"}})
        last: tuple[float, ...] = ()
        since = time.monotonic()
        deadline = since + 60
        while time.monotonic() < deadline:
            now = self.metrics()
            state = tuple(
                value for name, value in now.items() if name.startswith(("polyplane_source_", "polyplane_apply_duration_seconds_count"))
            )
            well = now.get("polyplane_in_force{}") == 1 and not now.get("polyplane_problems{severity=error}")
            if state != last or not well:
                last, since = state, time.monotonic()
            elif time.monotonic() - since > 2:
                return now
            time.sleep(0.1)
        pytest.fail(f"never quiet after {mark}: {self.log.read_text()[-3000:]}")

    def fresh(self) -> list[dict[str, Any]]:
        """Return what a fresh agent applies."""
        done = subprocess.run([*self.prefix, "--once"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        return [line for line in lines if line["event"] == "applied"]


@pytest.mark.parametrize("backend", ENFORCING)
def test_holds(
    *,
    server: ApiServer,
    node: LoneNode,
    tmp_path: Path,
    backend: str,
    record_property: Callable[[str, object], None],
) -> None:
    server.stop()
    with inside(node.path):
        server.start()
    seed = int(os.environ.get("POLYPLANE_TEST_SEED", "7"))
    churn = Churn(server, seed)
    agent = Soaked(node, server.kubeconfig(tmp_path / "kubeconfig"), backend, tmp_path / "log")
    sizes: list[float] = []
    try:
        agent.until(lambda: agent.get("/readyz")[0] == 200, seconds=30)
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            round_ends = min(ends, time.monotonic() + ROUND)
            while time.monotonic() < round_ends:
                for _ in range(churn.random.randrange(1, 8)):
                    churn.write()
                if churn.random.random() < 0.1:
                    with inside(node.path):
                        churn.misbehave()
                time.sleep(0.05)
            with inside(node.path):
                churn.heal()
            now = agent.quiet(server)
            sizes.append(now["process_resident_memory_bytes{}"])
            pods = {
                stored.raw["metadata"]["name"]
                for _, stored in server.cluster.objects(server.cluster.kind("v1", "pods"))
                if stored.raw["status"]["phase"] == "Running"
            }
            assert now["polyplane_objects{kind=Pod}"] == len(pods)
            assert [line["operations"] for line in agent.fresh()] == [0], f"seed {seed}: a fresh agent had something to change"
    finally:
        agent.process.terminate()
        agent.process.wait(60)
    assert agent.process.returncode == 0
    said = (
        f"{backend}: {len(sizes)} quiet points, {server.cluster.revision} writes, RSS {sizes[0] / 2**20:.1f} to {sizes[-1] / 2**20:.1f} MiB"
    )
    record_property("soak", said)
    sys.stderr.write(f"{said}\n")
    assert sizes[-1] < sizes[0] * 1.15 + 8 * 2**20
