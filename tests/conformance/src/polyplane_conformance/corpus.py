"""Foreign cases, read from a directory given by path, become scenarios. Nothing of them is part of this distribution.

Four formats are understood, each recognised by its file: the Kubernetes end-to-end tests (``kubernetes-e2e-netpol/tests.json``),
the default cases of cyclonus (``cyclonus-default/cases-ipv4.json`` and ``-ipv6.json``), the recipes
(``ahmetb-recipes/expected-tables.json``) and the conformance tests of network-policy-api
(``network-policy-api-conformance/v1alpha2/expected-steps.json``, likewise ``v1alpha1``). A pod's way to itself is left out everywhere:
the foreign suites disagree on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from polyplane_conformance.actions import (
    Action,
    AddNamespace,
    AddPod,
    ApplyPolicy,
    DeletePolicy,
    LabelNamespace,
    LabelPod,
    PodSpec,
    RemoveNamespace,
    RemovePod,
)
from polyplane_conformance.cast import AddressPlan, plan
from polyplane_conformance.corpus_tiers import read_tests
from polyplane_conformance.expectation import Expectation, Pair, Service
from polyplane_conformance.scenario import Scenario, Step

Raw = Mapping[str, Any]
_ADDRESS: Final = re.compile(r"\{podIP\(([^)]+)\)\}/(host|\d+)")
_SIGNS: Final = {".": True, "X": False}


def load_corpus(directory: Path) -> tuple[Scenario, ...]:
    """Return all foreign cases found below the directory; formats that are not there are left out.

    :raises FileNotFoundError: when the directory holds none at all
    """
    found: list[Scenario] = []
    for name, read in (
        ("kubernetes-e2e-netpol/tests.json", _end_to_end),
        ("cyclonus-default/cases-ipv4.json", _cyclonus),
        ("ahmetb-recipes/expected-tables.json", _recipes),
        ("network-policy-api-conformance/v1alpha1/expected-steps.json", read_tests),
        ("network-policy-api-conformance/v1alpha2/expected-steps.json", read_tests),
    ):
        if (directory / name).exists():
            found += read(directory / name)
    if not found:
        raise FileNotFoundError(f"{directory} holds no corpus that this version reads; see --help for the layout")
    return tuple(found)


# --- Kubernetes end-to-end tests --------------------------------------------------------------------------------------


def _end_to_end(path: Path) -> Iterator[Scenario]:
    for index, test in enumerate(json.loads(path.read_text(encoding="utf-8"))["tests"]):
        containers = (tuple(f"serve-{port}-{name.lower()}={port}/{name}" for port in (80, 81) for name in ("TCP", "UDP", "SCTP")),)
        for family in (4, 6):
            yield Scenario(
                name=f"e2e/{index:02}-{_slug(test['name'])}-ipv{family}",
                description=test["name"],
                namespaces={pod.partition("/")[0]: {} for pod in test["pods"]},
                pods={pod: PodSpec(containers=containers) for pod in test["pods"]},
                steps=tuple(_end_to_end_steps(test["steps"], family)),
            )


def _end_to_end_steps(steps: Iterable[Raw], family: int) -> Iterator[Step]:
    for step in steps:
        if step["op"] == "check":
            cells = {(source, target): said for source, row in step["expected"].items() for target, said in row.items() if source != target}
            yield _step((), cells, f"{step['protocol']}/{step['port']}", family)
        else:
            yield Step(actions=(_end_to_end_action(step, family),), expectations=())


def _end_to_end_action(step: Raw, family: int) -> Action:
    match step["op"]:
        case "createPolicy" | "updatePolicy":
            return _apply(json.loads(_ADDRESS.sub(lambda found: _placeholder(found, family), json.dumps(step["policy"]))))
        case "deleteAllPolicies":
            return DeletePolicy(name="*")
        case "addNamespaceLabel":
            return LabelNamespace(name=step["namespace"], set={step["key"]: step["value"]})
        case "addPodLabels":
            return LabelPod(pod=step["pod"], set=step["labels"])
        case other:
            raise ValueError(f"unknown step {other!r} in the end-to-end tests")


def _placeholder(found: re.Match[str], family: int) -> str:
    length = "" if found[2] == "host" else f"/{found[2]}"
    return f"{{{found[1]}:{family}{length}}}"


# --- cyclonus ---------------------------------------------------------------------------------------------------------


def _cyclonus(path: Path) -> Iterator[Scenario]:
    by_family = {4: _read(path), 6: _read(path.with_name("cases-ipv6.json"))}
    addresses: dict[str, dict[int, str]] = {}
    for family, data in by_family.items():
        for pod in data["pods"]:
            addresses.setdefault(f"{pod['namespace']}/{pod['name']}", {})[family] = pod["ip"]
    # Pods that come later have an address of somebody else in the export; they get ones of their own.
    added = {pod: dict(plan((pod,)).of(pod)) for pod in ("y-2/a", "y-2/b", "x/d")}
    places = AddressPlan({**plan(()).addresses, **addresses, **added})
    for family, data in by_family.items():
        for case in data["cases"]:
            yield Scenario(
                name=f"cyclonus/{case['index']:03}-{_slug(case['description'])}-ipv{family}",
                description=case["description"],
                namespaces=data["namespaces"],
                pods={f"{pod['namespace']}/{pod['name']}": _pod(pod) for pod in data["pods"]},
                steps=tuple(_cyclonus_step(step, family) for step in case["steps"]),
                plan=places,
            )


def _cyclonus_step(step: Raw, family: int) -> Step:
    actions = tuple(_cyclonus_action(action) for action in step["actions"])
    expectations = tuple(
        _expectation(_table(rows, step["order"]), Service.parse(service), (family,)) for service, rows in step["expected"].items()
    )
    return Step(actions=actions, expectations=expectations)


def _cyclonus_action(action: Raw) -> Action:
    ((verb, details),) = action.items()
    pod = f"{details['namespace']}/{details['name']}" if "namespace" in details else ""
    match verb:
        case "createPolicy" | "updatePolicy":
            return _apply(details)
        case "deletePolicy":
            return DeletePolicy(name=pod)
        case "createNamespace":
            return AddNamespace(name=details["name"], labels=details["labels"])
        case "deleteNamespace":
            return RemoveNamespace(name=details["name"])
        case "setNamespaceLabels":
            return LabelNamespace(
                name=details["name"], set=details["labels"], drop=("new-ns",) if "new-ns" not in details["labels"] else ()
            )
        case "createPod":
            return AddPod(pod=pod, labels=details["labels"])
        case "deletePod":
            return RemovePod(pod=pod)
        case "setPodLabels":
            return LabelPod(pod=pod, set=details["labels"], drop=("new-label",) if "new-label" not in details["labels"] else ())
        case other:
            raise ValueError(f"unknown action {other!r} in the cyclonus cases")


# --- recipes ----------------------------------------------------------------------------------------------------------


def _recipes(path: Path) -> Iterator[Scenario]:
    for recipe in _read(path)["recipes"]:
        policies = [policy for text in recipe["policyYamls"] for policy in yaml.safe_load_all(text)]
        pods = {f"{pod['namespace']}/{pod['name']}": _pod(pod) for pod in recipe["pods"]}
        expectations = tuple(
            _expectation(_table(rows, recipe["order"]), Service.parse(service), (4, 6)) for service, rows in recipe["expected"].items()
        )
        yield Scenario(
            name=f"recipes/{_slug(recipe['name'])}",
            description=recipe["name"],
            namespaces=recipe["namespaces"],
            pods=pods,
            steps=(Step(actions=tuple(_apply(policy) for policy in policies), expectations=expectations),),
            plan=plan(pods),
        )


# --- common -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].rstrip("-")


def _apply(policy: Raw) -> ApplyPolicy:
    meta = policy["metadata"]
    return msgspec.convert({"policy": f"{meta.get('namespace', 'default')}/{meta['name']}", "spec": policy.get("spec")}, ApplyPolicy)


def _pod(pod: Raw) -> PodSpec:
    ports = tuple(f"{port['portName']}={port['port']}/{port['protocol']}" for port in pod["ports"])
    return PodSpec(labels=pod["labels"] or {}, containers=(ports,))


def _table(rows: Iterable[str], order: list[str]) -> dict[Pair, bool]:
    """Read rows of signs; cells that say nothing about policy (port not served, not asked) are left out."""
    return {
        (source, target): _SIGNS[sign]
        for source, row in zip(order, rows, strict=True)
        for target, sign in zip(order, row, strict=True)
        if source != target and sign in _SIGNS
    }


def _expectation(cells: Mapping[Pair, bool], service: Service, families: tuple[int, ...]) -> Expectation:
    return Expectation(services=(service,), families=families, cells=cells)


def _step(actions: tuple[Action, ...], cells: Mapping[Pair, bool], service: str, family: int) -> Step:
    return Step(actions=actions, expectations=(_expectation(cells, Service.parse(service), (family,)),))
