"""What it costs to list the pods of a cluster: the agent as a whole, its source alone, and the kubernetes package's own models.

Each in a process of its own, on the same data, served by the test kit in this process: CPU seconds and peak memory above what
the process had before it asked. The ratios are asserted when the large size runs (``--benchmarks``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polyplane_conformance.apiserver import ApiServer

if TYPE_CHECKING:
    from conftest import Recorder

MEASURE = """
import gc, json, resource, sys, time
kubeconfig = sys.argv[1]

def measured(work):
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # peak memory counts from here
    def memory(field):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024
    before, started = memory("VmRSS"), time.process_time()
    count = work()
    print(json.dumps({"cpu": time.process_time() - started, "mib": memory("VmHWM") - before, "count": count}))
"""

MODELS = """
from kubernetes import client, config
config.load_kube_config(kubeconfig)
api = client.CoreV1Api()
api.list_pod_for_all_namespaces(limit=1)  # loads the models
measured(lambda: len(api.list_pod_for_all_namespaces().items))
"""

SOURCE = """
import queue
from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY
from polyplane.cluster.model import InSync, PutObject
from polyplane.cluster.sources.kubernetes import KubernetesSource
source = KubernetesSource({"kubeconfig": kubeconfig, "watch_list": %s})
events = queue.SimpleQueue()
def work():
    source.polyplane_source_start(events.put, (NETWORK_POLICY,))
    count = 0
    while not isinstance(event := events.get(), InSync):
        count += isinstance(event, PutObject)
    return count
measured(work)
"""

AGENT = """
from polyplane import logs
from polyplane.agent import Agent
from polyplane.config import Config, LogFormat, LogLevel
logs.configure(LogLevel.ERROR, LogFormat.TEXT)
options = {"kubernetes": {"kubeconfig": kubeconfig, "watch_list": %s}}
agent = Agent(Config(backend="memory", node="node-0", source="kubernetes", source_options=options, observers=()))
def work():
    agent.run(once=True)
    return len(agent.store.pods)
measured(work)
"""

WAYS = {
    "kubernetes client, models": MODELS,
    "source, pages": SOURCE % False,
    "source, streamed list": SOURCE % True,
    "agent, pages": AGENT % False,
    "agent, streamed list": AGENT % True,
}


def pod(number: int) -> dict[str, Any]:
    """Return a pod as a cluster has them: 7 kB, most of it managed fields, environment, mounts and conditions."""
    name, address = f"app-{number % 50}-{number:05}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    variables = [{"name": f"SETTING_{index}", "value": f"https://service-{index}.example.org/{number}"} for index in range(20)]
    mounts = [{"name": f"volume-{index}", "mountPath": f"/var/lib/data/{index}", "readOnly": True} for index in range(6)]
    fields = {f"f:field-{index}": {f"f:inner-{inner}": {} for inner in range(6)} for index in range(20)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": f"ns-{number % 100}",
            "labels": {"app": f"app-{number % 50}", "pod-template-hash": f"{number % 50:010}", "team": f"team-{number % 7}"},
            "annotations": {"checksum/config": f"{number:064}", "prometheus.io/scrape": "true"},
            "managedFields": [
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}
            ],
        },
        "spec": {
            "nodeName": f"node-{number % 100}",
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example.org/app:1.2.3",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": variables,
                    "volumeMounts": mounts,
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                }
            ],
            "volumes": [{"name": f"volume-{index}", "configMap": {"name": f"settings-{index}", "defaultMode": 420}} for index in range(6)],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
            * 2,
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {"name": "main", "ready": True, "restartCount": 0, "image": "registry.example.org/app:1.2.3", "imageID": "x"}
            ],
        },
    }


@pytest.mark.slow
def test_listing_pods(large: bool, recorder: Recorder, tmp_path: Path) -> None:
    pods = 10_000 if large else 300
    found: dict[str, dict[str, float]] = {}
    with ApiServer() as server:
        for number in range(pods):
            server.cluster.put(pod(number))
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        for way, script in WAYS.items():
            run = [sys.executable, "-W", "ignore", "-c", MEASURE + script, str(kubeconfig)]
            found[way] = json.loads(subprocess.run(run, check=True, capture_output=True, text=True, timeout=300).stdout)
            recorder.rows.append(
                {
                    "size": f"{pods} pods",
                    "step": f"list: {way} ({found[way]['mib']:.0f} MiB)",
                    "cpu_seconds": round(found[way]["cpu"], 4),
                    "count": found[way]["count"],
                }
            )
    assert all(one["count"] == pods for one in found.values()), found
    if large:
        models = found["kubernetes client, models"]
        for way in WAYS.keys() - {"kubernetes client, models"}:
            assert found[way]["cpu"] < models["cpu"] / 10, (way, found)
            assert found[way]["mib"] < models["mib"] / 20, (way, found)
