"""``polyplane run`` against the API server, as a pod of a DaemonSet would run it, watched through its probes and metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import pod, policy
from running import Agent

from polyplane_conformance.apiserver import ApiServer


@pytest.fixture
def agent(server: ApiServer, tmp_path: Path) -> Iterator[Agent]:
    running = Agent(server.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "log")
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0, running.log.read_text()


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
    began = time.time() - 1  # an object's creation is told in whole seconds
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
    assert after["policy_enforcement_latency_policy_creation_seconds_sum{}"] < time.time() - began
    assert after["polyplane_source_events_total{kind=Pod,type=put}"] == 2
    server.stop()
    agent.until(lambda: agent.metrics()["polyplane_problems{severity=error}"] > 0)
    assert agent.get("/readyz")[0] == 200
    server.start()
    agent.until(lambda: agent.metrics()["polyplane_problems{severity=error}"] == 0, seconds=30)
