"""The readers of foreign formats, on cases of our own in those formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyplane_conformance.corpus import load_corpus
from polyplane_conformance.model import check_model

POLICY = {"metadata": {"name": "p", "namespace": "x"}, "spec": {"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"]}}


def test_end_to_end_tests(tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes-e2e-netpol"
    folder.mkdir()
    block = {
        "metadata": POLICY["metadata"],
        "spec": {**POLICY["spec"], "ingress": [{"from": [{"ipBlock": {"cidr": "{podIP(y/a)}/host"}}]}]},
    }
    only_y = {"x/a": {"x/a": False, "x/b": True}, "x/b": {"x/a": False, "x/b": True}, "y/a": {"x/a": True, "x/b": True}}
    steps = [
        {"op": "createPolicy", "policy": POLICY},
        {"op": "check", "port": 80, "protocol": "TCP", "expected": {"x/b": {"x/a": False}}},
        {"op": "updatePolicy", "policy": block},
        {"op": "check", "port": 80, "protocol": "TCP", "expected": only_y},
        {"op": "deleteAllPolicies"},
        {"op": "check", "port": 80, "protocol": "TCP", "expected": {"x/b": {"x/a": True}}},
    ]
    test = {"name": "One way", "pods": ["x/a", "x/b", "y/a"], "steps": steps}
    (folder / "tests.json").write_text(json.dumps({"tests": [test]}), encoding="utf-8")
    four, six = load_corpus(tmp_path)
    assert four.name == "e2e/00-one-way-ipv4"
    for case in (four, six):
        outcome = check_model(case)
        assert outcome.passed, outcome.explain()
    only_y["x/b"]["x/a"] = True
    (folder / "tests.json").write_text(json.dumps({"tests": [test]}), encoding="utf-8")
    assert not check_model(load_corpus(tmp_path)[0]).passed


def test_recipes(tmp_path: Path) -> None:
    folder = tmp_path / "ahmetb-recipes"
    folder.mkdir()
    ports = [{"name": "", "port": 80, "portName": "", "protocol": "TCP"}]
    pods = [{"namespace": "default", "name": name, "labels": {"app": name}, "ports": ports} for name in ("web", "db")]
    policy = "kind: NetworkPolicy\nmetadata: {name: closed}\nspec: {podSelector: {matchLabels: {app: db}}}\n"
    recipe = {"name": "one", "namespaces": {"default": {}}, "pods": pods, "policyYamls": [policy]}
    recipe |= {"order": ["default/web", "default/db"], "expected": {"TCP/80": [".X", "NX"]}}
    (folder / "expected-tables.json").write_text(json.dumps({"recipes": [recipe]}), encoding="utf-8")
    (case,) = load_corpus(tmp_path)
    (expectation,) = case.steps[0].expectations
    assert expectation.cells == {("default/web", "default/db"): False}
    outcome = check_model(case)
    assert outcome.passed, outcome.explain()


def test_a_directory_without_any_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no corpus"):
        load_corpus(tmp_path)
