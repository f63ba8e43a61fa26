"""A small cluster in files, for tests of what reads directories."""

from __future__ import annotations

from pathlib import Path

POD = """\
apiVersion: v1
kind: Pod
metadata: {{namespace: shop, name: {name}, labels: {{app: {name}}}}}
spec: {{nodeName: {node}}}
status: {{phase: Running, podIPs: [{{ip: {address}}}]}}
"""

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: web-only}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 5432}]
"""

BROKEN_POLICY = POLICY.replace("port: 5432", "port: 99999")


def write_shop(directory: Path) -> Path:
    """Write two pods on node n1 and a policy; return the directory."""
    directory.mkdir(exist_ok=True)
    (directory / "web.yaml").write_text(POD.format(name="web", node="n1", address="10.0.0.1"))
    (directory / "db.yaml").write_text(POD.format(name="db", node="n1", address="10.0.0.2"))
    (directory / "policy.yaml").write_text(POLICY)
    return directory
