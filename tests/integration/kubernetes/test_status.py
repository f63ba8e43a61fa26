"""Policies for administrators carry in their status whether they are accepted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from running import Agent

from polyplane.cluster.model import ObjectKey, PutObject
from polyplane.cluster.store import Store
from polyplane.errors import ConfigError
from polyplane.hookspecs import Followed
from polyplane.ir.program import EMPTY
from polyplane.observers.kubernetes_status import CONDITION, KubernetesStatusObserver
from polyplane.plugins import dialects
from polyplane_conformance.apiserver import ApiServer, Kind

API_VERSION = "policy.networking.k8s.io/v1alpha2"
POLICIES = Kind(API_VERSION, "ClusterNetworkPolicy", "clusternetworkpolicies", namespaced=False)
OTHER = {"type": "Ready", "status": "True", "reason": "Other", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def policy(name: str, **spec: Any) -> dict[str, Any]:
    content = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, **spec}
    return {
        "apiVersion": API_VERSION,
        "kind": POLICIES.kind,
        "metadata": {"name": name, "generation": 3},
        "spec": content,
        "status": {"conditions": [OTHER]},
    }


def followed(*policies: dict[str, Any]) -> Followed:
    store = Store(dialects())
    for raw in policies:
        store.apply(PutObject(key=ObjectKey(API_VERSION, POLICIES.kind, "", raw["metadata"]["name"]), raw=raw))
    return Followed(
        program=EMPTY,
        in_sync=True,
        events=1,
        waited=0,
        seconds=0,
        objects={},
        problems=store.problems,
        unsupported={},
        policies=store.policies.keys(),
    )


def condition(server: ApiServer, name: str, status: str) -> dict[str, Any]:
    """Wait for a condition of this status; those of others are still there."""
    deadline = time.monotonic() + 60
    while True:
        other, *mine = server.cluster.get(POLICIES, "", name).raw["status"]["conditions"]
        assert other == OTHER
        if mine and mine[0]["status"] == status:
            (found,) = mine
            assert found["type"] == CONDITION
            return dict(found)
        assert time.monotonic() < deadline, server.requests
        time.sleep(0.02)


def patches(server: ApiServer) -> int:
    return sum(request.startswith("PATCH") for request in server.requests)


def test_agents_agree_and_write_only_what_is_news(server: ApiServer, tmp_path: Path) -> None:
    server.cluster.add_kind(POLICIES)
    names = policy("names", egress=[{"action": "Accept", "to": [{"domainNames": ["example.org"]}]}])
    good, bad = policy("good", priority=2), policy("bad", priority=2000)
    for raw in (good, names, bad):
        server.cluster.put(raw)
    options = {"kubeconfig": str(server.kubeconfig(tmp_path / "kubeconfig")), "spread": 0}
    first, second = (KubernetesStatusObserver(options) for _ in range(2))
    first.polyplane_followed(followed(good, names, bad))
    accepted = condition(server, "good", "True")
    assert (accepted["reason"], accepted["observedGeneration"]) == ("Accepted", 3)
    unsupported = condition(server, "names", "False")
    assert unsupported["reason"] == "Unsupported"
    assert "spec.egress[0].to[0].domainNames" in unsupported["message"]
    refused = condition(server, "bad", "False")
    assert refused["reason"] == "Invalid"
    assert refused["message"].startswith("spec.priority: 2000 is out of range")

    second.polyplane_followed(followed(good, names, bad))
    first.polyplane_followed(followed(good, names, bad))
    time.sleep(0.3)
    assert patches(server) == 3

    second.polyplane_followed(followed(good, policy("names"), bad))
    assert condition(server, "names", "True")["message"] == ""
    assert patches(server) == 4


def test_an_object_that_is_gone_is_no_matter(server: ApiServer, tmp_path: Path) -> None:
    server.cluster.add_kind(POLICIES)
    server.cluster.put(policy("here"))
    observer = KubernetesStatusObserver({"kubeconfig": str(server.kubeconfig(tmp_path / "kubeconfig")), "spread": 0})
    observer.polyplane_followed(followed(policy("gone"), policy("here", priority=2)))
    condition(server, "here", "True")
    assert patches(server) == 1


def test_an_agent_writes_it(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.cluster.add_kind(POLICIES)
    server.cluster.put(policy("good"))
    monkeypatch.setenv("POLYPLANE_OBSERVERS", "log,kubernetes-status")
    monkeypatch.setenv("POLYPLANE_OBSERVER_OPTIONS__KUBERNETES-STATUS__SPREAD", "0.1")
    agent = Agent(server.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "log")
    try:
        agent.until(lambda: agent.get("/readyz") == (200, "ok\n"))
        assert condition(server, "good", "True")["reason"] == "Accepted"
    finally:
        agent.process.terminate()
        agent.process.wait(60)


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"observer.kubernetes-status: option 'spread' is unknown or its value -1 is none"):
        KubernetesStatusObserver({"spread": -1})
