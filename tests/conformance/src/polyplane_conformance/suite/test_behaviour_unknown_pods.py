"""Behaviour: pods that the node has and the cluster has not told of yet. No backend needs to do anything for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from polyplane_conformance.probe.model import Outcome
from polyplane_conformance.sandbox.topology import PodSpec
from polyplane_conformance.stage import AgentProcess, Stage, only_from, pod, policy, wait_for

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

POD = "x/a"
LOCKED = policy("x/door", podSelector=pod("a"), ingress=only_from("b"))


def _is_it(raw: Mapping[str, Any]) -> bool:
    return raw["kind"] == "Pod" and f"{raw['metadata']['namespace']}/{raw['metadata']['name']}" == POD


def _untold(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return None if _is_it(raw) else raw


def _unaddressed(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in raw.items() if key != "status"} if _is_it(raw) else raw


def _settings(stage: Stage, folder: Path) -> dict[str, str]:
    """Return how the agent finds pods in the sandbox: a network plugin's result, and the switch where there is one."""
    options = stage.sandbox.backend_options()
    settings = {"cni_results": str(folder / "results")}
    return settings | ({"ovsdb": f"unix:{options['run_dir']}/db.sock"} if "run_dir" in options else {})


def _leave_result(stage: Stage, folder: Path) -> None:
    """Write what a network plugin leaves behind when it has made the pod's network."""
    spec = stage.sandbox.topology.find(POD)
    assert isinstance(spec, PodSpec)
    interfaces: list[Mapping[str, str]] = [{"name": spec.host_interface}, {"name": "eth0", "sandbox": "/run/netns/pod"}]
    result = {
        "kind": "cniCacheV1",
        "ifName": "eth0",
        "cniArgs": [["K8S_POD_NAMESPACE", spec.namespace], ["K8S_POD_NAME", spec.name]],
        "result": {"interfaces": interfaces, "ips": [{"address": f"{address}/24", "interface": 1} for address in spec.addresses]},
    }
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "net-1-eth0").write_text(json.dumps(result), encoding="utf-8")


def test_an_unknown_pod_is_closed_until_it_is_known(stage: Stage, tmp_path: Path) -> None:
    """Where the operator wants it, a pod that nobody has told of yet neither sends nor receives; the node's probes pass."""
    stage.begin()
    stage.rig.dataplane.teardown()
    _leave_result(stage, tmp_path)
    with AgentProcess(stage, tmp_path, {"unknown_pods": "deny", **_settings(stage, tmp_path)}) as agent:
        agent.write(_untold)
        agent.start()
        stage.expect(allowed=["x/c -> x/b", "y/a -> x/b"], denied=["x/b -> x/a", "x/a -> x/b", "outside -> x/a", "x/a -> outside"])
        agent.write()
        wait_for(lambda: stage.outcome("x/b", POD) is Outcome.ALLOWED, "the pod that is known now")
        stage.expect(allowed=["x/b -> x/a", "x/a -> x/b", "outside -> x/a", "x/a -> outside"], denied=[])
        agent.write(_untold)
        wait_for(lambda: stage.outcome("x/b", POD) is Outcome.DENIED, "the pod that is unknown again")
        stage.expect(allowed=["x/c -> x/b"], denied=["x/b -> x/a", "x/a -> x/b"])


def test_closed_prefixes_need_nobody_to_notice_the_pod(stage: Stage, tmp_path: Path) -> None:
    """With the prefix of the node's pods, an address is closed before there is a pod, also while no agent runs."""
    spec = stage.sandbox.topology.find(POD)
    assert isinstance(spec, PodSpec)
    stage.begin()
    stage.rig.dataplane.teardown()
    address = next(address for address in spec.addresses if "." in address)
    settings = {"unknown_pods": "deny", "locate": "", "pod_prefixes": f"{address.rpartition('.')[0]}.0/24"}
    with AgentProcess(stage, tmp_path, settings) as agent:
        agent.write(_untold)
        agent.start()
        stage.expect(allowed=["x/c -> x/b", "y/a -> x/b"], denied=["x/b -> x/a", "x/a -> x/b"], families=(4,))
        agent.write()
        wait_for(lambda: stage.outcome("x/b", POD) is Outcome.ALLOWED, "the pod that is known now")
        stage.expect(allowed=["x/b -> x/a", "x/a -> x/b"], denied=[], families=(4,))


def test_a_pod_has_its_policy_before_the_cluster_knows_its_address(stage: Stage, tmp_path: Path) -> None:
    """The result of its network plugin is enough: no packet of the pod is without its policy."""
    stage.begin(LOCKED)
    stage.rig.dataplane.teardown()
    _leave_result(stage, tmp_path)
    with AgentProcess(stage, tmp_path, _settings(stage, tmp_path)) as agent:
        agent.write(_unaddressed)
        agent.start()
        stage.expect(allowed=["x/b -> x/a", "x/a -> x/c"], denied=["x/c -> x/a", "y/a -> x/a"])
