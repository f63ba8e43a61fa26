"""`Following`: a running kubernetes source and the state that its events add up to; objects to write."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY
from polyplane.cluster.model import Dialect, InSync, PutObject, RemoveObject, SourceEvent, SourceProblem
from polyplane.cluster.sources.kubernetes import KubernetesSource

#: Everything happens fast, so that tests do.
QUICK = {"retry_first": 0.05, "retry_max": 0.3, "absent_interval": 0.1, "silence": 5}


class Following:
    """A running source and the state that its events add up to."""

    def __init__(self, kubeconfig: Path | None, dialects: tuple[Dialect, ...] = (NETWORK_POLICY,), **options: object) -> None:
        self.queue: queue.SimpleQueue[SourceEvent] = queue.SimpleQueue()
        self.source = KubernetesSource({**({"kubeconfig": str(kubeconfig)} if kubeconfig else {}), **QUICK, **options})
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.events: list[SourceEvent] = []
        self.problems: dict[str, str] = {}
        self.syncs = 0
        self.source.polyplane_source_start(self.queue.put, dialects)

    def take(self) -> None:
        while not self.queue.empty():
            event = self.queue.get()
            self.events.append(event)
            match event:
                case PutObject():
                    assert event.raw["kind"] == event.key.kind
                    self.objects[event.key[1:]] = dict(event.raw)
                case RemoveObject():
                    self.objects.pop(event.key[1:], None)
                case InSync():
                    self.syncs += 1
                case SourceProblem(problem=None):
                    self.problems.pop(event.where, None)
                case SourceProblem():
                    self.problems[event.where] = str(event.problem)

    def until(self, holds: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.take()
            if holds():
                return
            assert time.monotonic() < deadline, f"not within {seconds} s; objects {sorted(self.objects)}, problems {self.problems}"
            time.sleep(0.01)

    def names(self, kind: str) -> set[str]:
        self.take()
        return {name for found, _, name in self.objects if found == kind}

    def stop(self) -> None:
        self.source.polyplane_source_stop()


def pod(name: str, *, phase: str = "Running", address: str = "10.0.0.1", namespace: str = "shop", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, **labels}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 80}]}]},
        "status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]},
    }


def policy(name: str, namespace: str = "shop") -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
