"""Authors see by Events on their objects what is not enforced as they wrote it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from following import pod, policy
from running import Agent

from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY
from polyplane.cluster.model import ObjectKey, PutObject
from polyplane.cluster.store import Store
from polyplane.hookspecs import Followed
from polyplane.ir.program import EMPTY
from polyplane.observers.kubernetes_events import KubernetesEventsObserver
from polyplane_conformance.apiserver import ApiServer

EVENTS = "events.k8s.io/v1"


def followed(store: Store, unsupported: Mapping[ObjectKey, tuple[str, ...]] | None = None) -> Followed:
    return Followed(
        program=EMPTY, in_sync=True, events=1, waited=0, seconds=0, objects={}, problems=dict(store.problems), unsupported=unsupported or {}
    )


def written(server: ApiServer, number: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    kind = server.cluster.kind(EVENTS, "events")
    while len(found := server.cluster.objects(kind)) < number:
        assert time.monotonic() < deadline, f"{len(found)} events, {server.requests}"
        time.sleep(0.02)
    return [stored.raw for _, stored in found]


def test_two_agents_say_it_once(server: ApiServer, tmp_path: Path) -> None:
    bad = policy("bad")
    bad["spec"]["ingress"] = [{"ports": [{"port": 99999}]}]
    server.cluster.put(bad)
    server.cluster.put(policy("hard"))
    store = Store([NETWORK_POLICY])
    store.apply(PutObject(key=ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", "bad"), raw=bad))
    hard = ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", "hard")
    options = {"kubeconfig": str(server.kubeconfig(tmp_path / "kubeconfig")), "spread": 0, "repeat": 0.1}
    agents = [KubernetesEventsObserver(options) for _ in range(2)]
    for agent in agents:
        agent.polyplane_followed(followed(store, {hard: ("log rules (this kernel lacks NFLOG)",)}))
    first, second = written(server, 2)
    time.sleep(0.3)  # they say it again, and both of them do
    assert len(written(server, 2)) == 2
    assert sum(request.startswith("POST") for request in server.requests) >= 4
    assert {first["reason"], second["reason"]} == {"PolicyRejected", "PolicyUnsupported"}
    rejected = first if first["reason"] == "PolicyRejected" else second
    regarding = rejected["regarding"]
    stored = server.cluster.get(server.cluster.kind("networking.k8s.io/v1", "networkpolicies"), "shop", "bad")
    assert (regarding["name"], regarding["uid"]) == ("bad", stored.raw["metadata"]["uid"])
    assert "spec.ingress[0].ports[0].port" in rejected["note"]
    assert rejected["type"] == "Warning"
    for agent in agents:
        agent.polyplane_followed(followed(Store([NETWORK_POLICY])))
    time.sleep(0.2)
    said = len(server.requests)
    time.sleep(0.3)
    assert len(server.requests) == said


@pytest.mark.parametrize("code", [429, 503])
def test_what_the_server_cannot_take_now_is_said_soon(server: ApiServer, tmp_path: Path, code: int) -> None:
    hard = ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", "hard")
    server.cluster.put(policy("hard"))
    options = {"kubeconfig": str(server.kubeconfig(tmp_path / "kubeconfig")), "spread": 0, "retry": 0.1}
    server.faults.fail(code, path="/events", times=3)
    KubernetesEventsObserver(options).polyplane_followed(followed(Store([NETWORK_POLICY]), {hard: ("log rules",)}))
    (said,) = written(server, 1)
    assert said["regarding"]["name"] == "hard"
    assert sum(request.startswith("POST") for request in server.requests) == 4


@pytest.mark.needs("kubectl")
def test_kubectl_shows_what_a_running_agent_says(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = policy("bad")
    bad["spec"]["ingress"] = [{"ports": [{"port": 99999}]}]
    for one in (bad, policy("good"), pod("web")):
        server.cluster.put(one)
    monkeypatch.setenv("POLYPLANE_OBSERVERS", "log,kubernetes-events")
    monkeypatch.setenv("POLYPLANE_OBSERVER_OPTIONS__KUBERNETES-EVENTS__SPREAD", "0.1")
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")

    def told(name: str) -> str:
        asked = ["kubectl", "--kubeconfig", str(kubeconfig), "--cache-dir", str(tmp_path / "cache"), "--namespace", "shop"]
        done = subprocess.run([*asked, "events", "--for", f"networkpolicy/{name}"], capture_output=True, text=True, check=False, timeout=60)
        if "unknown command" in done.stderr:
            pytest.skip("kubectl is too old to have the command events: it needs 1.26")
        assert done.returncode == 0, done.stderr
        return done.stdout

    agent = Agent(kubeconfig, tmp_path / "log")
    try:
        agent.until(lambda: "PolicyRejected" in told("bad"))
        assert "spec.ingress[0].ports[0].port" in told("bad")
        assert "Policy" not in told("good")
    finally:
        agent.process.terminate()
        agent.process.wait(60)
