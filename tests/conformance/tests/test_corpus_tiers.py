"""The reader of step lists for policies of cluster administrators, on a test of our own in that format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polyplane_conformance.corpus import load_corpus
from polyplane_conformance.model import check_model

CLUSTER = """\
{kind: Namespace, metadata: {name: long-name-one, labels: {side: one}}}
---
{kind: Namespace, metadata: {name: long-name-two, labels: {side: two}}}
---
kind: StatefulSet
metadata: {name: web, namespace: long-name-one}
spec: {replicas: 1, template: {metadata: {labels: {app: web}}, spec: {containers: [{ports: [{containerPort: 80, name: web}]}]}}}
---
kind: StatefulSet
metadata: {name: web, namespace: long-name-two}
spec: {replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{}]}}}
---
kind: StatefulSet
metadata: {name: host, namespace: long-name-two}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: host}}
    spec: {hostNetwork: true, containers: [{ports: [{containerPort: {{ index .HostNetworkPorts 1 }}}]}]}
"""
POLICY = """\
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {matchLabels: {side: two}}}
  egress:
    - {action: Deny, to: [{namespaces: {matchLabels: {side: one}}}]}
    - {action: Accept, to: [{namespaces: {matchLabels: {side: one}}}]}
    - {action: Deny, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {number: {{ index .HostNetworkPorts 1 }}}}}]}
---
{kind: NetworkPolicy, metadata: {name: n, namespace: long-name-two}, spec: {podSelector: {}, policyTypes: [Egress]}}
"""
CLIENT, SERVER, HOST = "long-name-two/web-0", "long-name-one/web-0", "long-name-two/host-1"


def probe(expect: str, server: str = SERVER, port: Any = 80) -> Any:
    return {"op": "probe", "client": CLIENT, "server": server, "protocol": "TCP", "port": port, "expect": expect}


STEPS = [
    {"op": "subtest", "name": "one"},
    probe("deny"),
    {"op": "swap_rules", "policy": "p", "direction": "egress", "i": 0, "j": 1},
    probe("allow"),
    probe("deny", HOST, "HostNetworkPorts[1]"),
    {"op": "set_protocols", "policy": "p", "direction": "egress", "index": 0, "protocols": [{"destinationNamedPort": "web"}]},
    probe("allow"),
    probe("deny", port=81),
    {"op": "set_action", "policy": "p", "direction": "egress", "index": 2, "action": "Pass"},
    probe("deny", HOST, "HostNetworkPorts[1]"),
    {"op": "delete", "kind": "NetworkPolicy", "namespace": "long-name-two", "name": "n"},
    probe("allow", HOST, "HostNetworkPorts[1]"),
    {"op": "set_namespace_labels", "namespace": "long-name-one", "labels": {"side": "none"}},
    probe("allow", port=81),
    {
        "op": "prepend_rule",
        "policy": "p",
        "direction": "egress",
        "rule": {"action": "Deny", "to": [{"networks": [f"{{podIP({SERVER})}}/host"]}]},
    },
    {"op": "set_priority", "policy": "p", "priority": 6},
    probe("deny"),
    probe("allow", HOST),
]


def write(folder: Path, steps: Any) -> None:
    base = folder / "network-policy-api-conformance" / "v1alpha2" / "base"
    base.mkdir(parents=True, exist_ok=True)
    (base / "manifests.yaml").write_text(CLUSTER, encoding="utf-8")
    (base / "policies.yaml").write_text(POLICY, encoding="utf-8")
    test = {"name": "Ours", "description": "A test", "manifests": ["conformance/base/policies.yaml"], "steps": steps}
    (base.parent / "expected-steps.json").write_text(json.dumps({"tests": [test]}), encoding="utf-8")


def test_every_step_and_both_versions(tmp_path: Path) -> None:
    write(tmp_path, STEPS)
    four, six = load_corpus(tmp_path)
    assert (four.name, six.name) == ("v1alpha2/00-ours-ipv4", "v1alpha2/00-ours-ipv6")
    for case in (four, six):
        assert sum(len(expectation.cells) for step in case.steps for expectation in step.expectations) == 10
        outcome = check_model(case)
        assert outcome.passed, outcome.explain()


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, [*STEPS[:-1], probe("deny", HOST)])
    assert not check_model(load_corpus(tmp_path)[0]).passed


def test_an_unknown_step_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, [{"op": "paint", "policy": "p"}])
    with pytest.raises(ValueError, match="unknown step 'paint'"):
        load_corpus(tmp_path)
