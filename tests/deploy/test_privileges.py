"""What the chart grants is enough for each backend and no more: tried with just these capabilities, and with one less."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyplane_conformance.gaps import load_gaps
from polyplane_conformance.sandbox import Wiring
from polyplane_conformance.sandbox.bridges import BRIDGE, RUN_DIRECTORY, Switch
from polyplane_conformance.sandbox.namespaces import new_prefix
from polyplane_conformance.sandbox.processes import Daemons

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
def namespace() -> Iterator[str]:
    name = f"{new_prefix()}privileges"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def options(backend: str, namespace: str) -> Iterator[list[str]]:
    if load_gaps(backend).wiring is Wiring.ROUTED:
        yield []
        return
    daemons = Daemons()
    switch = Switch(Path("/run/netns", namespace), RUN_DIRECTORY / namespace, daemons)  # a socket's path must be short
    try:
        switch.start()
        yield ["--backend-option", f"bridge={BRIDGE}", "--backend-option", f"run_dir={switch.directory}"]
    finally:
        daemons.close()
        shutil.rmtree(switch.directory, ignore_errors=True)


def run(namespace: str, capabilities: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``polyplane`` as the DaemonSet's container does: as root, without what root usually may."""
    kept = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    confined = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", f"--bounding-set={kept}"]
    program = str(Path(sys.executable).with_name("polyplane"))
    # Not by ip netns exec, which mounts a /sys of its own: what eBPF pins there would be gone with the process.
    command = ["nsenter", f"--net=/run/netns/{namespace}", *confined, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_the_chart_grants_what_is_needed(backend: str, namespace: str, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    granted = BACKENDS[backend]["capabilities"]
    chosen = ["--backend", backend, *options]
    enforce = ["run", "--once", "--source", str(tmp_path), "--node", "node-1", *chosen, "--log-format", "json"]
    try:
        for operations in (True, False):  # the second time it reads back what it made, and finds it right
            done = run(namespace, granted, *enforce)
            assert done.returncode == 0, done.stderr
            (applied,) = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "applied"]
            assert (applied["operations"] > 0) is operations
        for needless in granted:
            assert run(namespace, granted, "teardown", "--yes", *chosen).returncode == 0
            less = [name for name in granted if name != needless]
            assert run(namespace, less, *enforce).returncode != 0, f"it would do without {needless}"
    finally:
        done = run(namespace, granted, "teardown", "--yes", *chosen)
    assert done.returncode == 0, done.stderr
