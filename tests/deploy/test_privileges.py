"""What the chart grants is enough for each backend and no more: tried with just these capabilities, and with one less."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyplane_conformance.gaps import load_gaps
from polyplane_conformance.sandbox.lone import LoneNode, lone_node

CHART = Path(__file__).parents[2] / "deploy/chart"
BACKENDS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())["backends"]

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.needs("setpriv")]

MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: main, image: none}]}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]
"""


@pytest.fixture
def node(backend: str) -> Iterator[LoneNode]:
    with lone_node("privileges", load_gaps(backend).wiring) as made:
        yield made


def run(namespace: str, capabilities: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``polyplane`` as the DaemonSet's container does: as root, without what root usually may."""
    kept = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    confined = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", f"--bounding-set={kept}"]
    program = str(Path(sys.executable).with_name("polyplane"))
    # Not by ip netns exec, which mounts a /sys of its own: what eBPF pins there would be gone with the process.
    command = ["nsenter", f"--net=/run/netns/{namespace}", *confined, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_the_chart_grants_what_is_needed(backend: str, node: LoneNode, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    granted = BACKENDS[backend]["capabilities"]
    chosen = ["--backend", backend, *(part for name, value in node.options.items() for part in ("--backend-option", f"{name}={value}"))]
    enforce = ["run", "--once", "--source", str(tmp_path), "--node", "node-1", *chosen, "--log-format", "json"]
    try:
        for operations in (True, False):  # the second time it reads back what it made, and finds it right
            done = run(node.name, granted, *enforce)
            assert done.returncode == 0, done.stderr
            (applied,) = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "applied"]
            assert (applied["operations"] > 0) is operations
        for needless in granted:
            assert run(node.name, granted, "teardown", "--yes", *chosen).returncode == 0
            less = [name for name in granted if name != needless]
            assert run(node.name, less, *enforce).returncode != 0, f"it would do without {needless}"
    finally:
        done = run(node.name, granted, "teardown", "--yes", *chosen)
    assert done.returncode == 0, done.stderr
