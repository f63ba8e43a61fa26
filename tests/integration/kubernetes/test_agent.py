"""``polyplane run`` against the API server, as a pod of a DaemonSet would run it, watched through its probes and metrics."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from following import pod, policy
from prometheus_client.parser import text_string_to_metric_families

from polyplane_conformance.apiserver import ApiServer


class Agent:
    """The process, and what it says of itself."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = log
        flags = ["--kubeconfig", str(kubeconfig), "--node", "node-1", "--backend", "memory", "--listen", self.address]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("polyplane"), "run", *flags, "--log-format", "json"], stdout=out, stderr=out
            )

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sample.labels.items())}}}": sample.value
            for family in families
            for sample in family.samples
        }

    def until(self, holds: Callable[[], object], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{self.get('/readyz')} {self.log.read_text()}"
            time.sleep(0.05)


@pytest.fixture
def agent(server: ApiServer, tmp_path: Path) -> Iterator[Agent]:
    running = Agent(server.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "log")
    yield running
    running.process.terminate()
    assert running.process.wait(10) == 0, running.log.read_text()


def test_is_ready_when_all_is_in_force_and_measures(server: ApiServer, agent: Agent) -> None:
    server.faults.forbidden = {"networkpolicies"}
    server.cluster.put(pod("web"))
    agent.until(lambda: agent.get("/healthz") == (200, "ok\n"))
    assert agent.get("/readyz") == (503, "the source kubernetes has not delivered everything yet\n")
    server.faults.forbidden = set()
    agent.until(lambda: agent.get("/readyz") == (200, "ok\n"))
    before = agent.metrics()
    assert before["polyplane_endpoints{}"] == 1
    assert before["policy_enforcement_latency_policy_creation_seconds_count{}"] == 0
    server.cluster.put(policy("deny"))
    agent.until(lambda: agent.metrics()["policy_enforcement_latency_policy_creation_seconds_count{}"] == 1)
    server.cluster.put(pod("second", address="10.0.0.2"))
    agent.until(lambda: agent.metrics()["policy_enforcement_latency_pod_creation_seconds_count{}"] == 1)
    after = agent.metrics()
    assert (after["polyplane_in_force{}"], after["polyplane_in_sync{}"], after["polyplane_endpoints_isolated{direction=ingress}"]) == (
        1,
        1,
        2,
    )
    assert after["policy_enforcement_latency_policy_creation_seconds_sum{}"] < 2
    assert after["polyplane_source_events_total{kind=Pod,type=put}"] == 2
    server.stop()
    agent.until(lambda: agent.metrics()["polyplane_problems{severity=error}"] > 0)
    assert agent.get("/readyz")[0] == 200
    server.start()
    agent.until(lambda: agent.metrics()["polyplane_problems{severity=error}"] == 0, seconds=30)
