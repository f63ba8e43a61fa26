"""Reader of the step lists of the network-policy-api conformance suite: ``expected-steps.json`` of one API version and its manifests.

A test applies some manifests, then changes policies piece by piece and probes in between; what a step changes is applied as a
whole new version of the object. Manifests are Go templates in places: only ports of the host network are filled in.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from polyplane_conformance.actions import Action, ApplyClusterPolicy, ApplyPolicy, DeletePolicy, LabelNamespace, PodSpec
from polyplane_conformance.cast import AddressPlan, plan
from polyplane_conformance.expectation import Expectation, Pair, Service
from polyplane_conformance.scenario import Scenario, Step

Raw = Mapping[str, Any]
Objects = dict[tuple[str, str], dict[str, Any]]

#: What fills ``{{ index .HostNetworkPorts 3 }}`` and ``HostNetworkPorts[3]``.
_HOST_PORTS: Final = tuple(range(36360, 36368))
_TEMPLATE: Final = re.compile(r"\{\{ *index +\.HostNetworkPorts +(\d) *\}\}")
_PORT: Final = re.compile(r"HostNetworkPorts\[(\d)\]")
_ADDRESS: Final = re.compile(r"\{podIP\(([^)]+)\)\}/host")
_VERDICTS: Final = {"allow": True, "deny": False}


def read_tests(path: Path) -> Iterator[Scenario]:
    """Yield every test of a step list, once for each IP version.

    :raises ValueError: for a step that is not known
    """
    version = path.parent.name
    cluster = list(_manifests(path.parent / "base" / "manifests.yaml"))
    namespaces = {raw["metadata"]["name"]: raw["metadata"]["labels"] for raw in cluster if raw["kind"] == "Namespace"}
    pods = dict(_pods(raw for raw in cluster if raw["kind"] == "StatefulSet"))
    places = _places(pod for pod, spec in pods.items() if not spec.host_network)
    for number, test in enumerate(json.loads(path.read_text(encoding="utf-8"))["tests"]):
        files = [path.parent / name.removeprefix("conformance/") for name in test["manifests"]]
        for family in (4, 6):
            yield Scenario(
                name=f"{version}/{number:02}-{test['name'].lower()}-ipv{family}",
                description=test["description"],
                namespaces=namespaces,
                pods=pods,
                steps=tuple(_steps([raw for file in files for raw in _manifests(file)], test["steps"], family)),
                plan=places,
            )


# --- the cluster --------------------------------------------------------------------------------------------------------


def _manifests(path: Path) -> Iterator[dict[str, Any]]:
    text = _TEMPLATE.sub(lambda found: str(_HOST_PORTS[int(found[1])]), path.read_text(encoding="utf-8"))
    yield from (raw for raw in yaml.load_all(text, Loader=yaml.CSafeLoader) if raw)


def _pods(sets: Iterable[Raw]) -> Iterator[tuple[str, PodSpec]]:
    for raw in sets:
        meta, spec, template = raw["metadata"], raw["spec"], raw["spec"]["template"]
        containers = tuple(
            tuple(f"{port.get('name', '')}={port['containerPort']}/{port.get('protocol', 'TCP')}" for port in container.get("ports") or ())
            for container in template["spec"]["containers"]
        )
        for number in range(spec["replicas"]):
            host = bool(template["spec"].get("hostNetwork"))
            # The node under test alone enforces with packets: all subjects are there, and of what is no subject, one elsewhere.
            yield (
                f"{meta['namespace']}/{meta['name']}-{number}",
                PodSpec(
                    labels=template["metadata"]["labels"],
                    containers=containers,
                    host_network=host,
                    node="remote" if host and number else "local",
                ),
            )


def _places(pods: Iterable[str]) -> AddressPlan:
    addresses = {pod: {4: f"10.245.0.{number}", 6: f"fd00:10:245::{number:x}"} for number, pod in enumerate(sorted(pods), 10)}
    return AddressPlan({**plan(()).addresses, **addresses})


# --- the steps ----------------------------------------------------------------------------------------------------------


def _steps(manifests: Iterable[dict[str, Any]], steps: Iterable[Raw], family: int) -> Iterator[Step]:
    objects: Objects = {(raw["kind"], raw["metadata"]["name"]): raw for raw in manifests}
    actions: list[Action] = [_apply(raw) for raw in objects.values()]
    cells: dict[Service, dict[Pair, bool]] = {}
    for step in steps:
        if step["op"] == "subtest":
            continue
        if step["op"] == "probe":
            port = _PORT.sub(lambda found: str(_HOST_PORTS[int(found[1])]), str(step["port"]))
            service = Service.parse(f"{step['protocol']}/{port}")
            cells.setdefault(service, {})[step["client"], step["server"]] = _VERDICTS[step["expect"]]
            continue
        if cells:
            yield _step(actions, cells, family)
            actions, cells = [], {}
        actions.append(_change(objects, step, family))
    yield _step(actions, cells, family)


def _step(actions: Iterable[Action], cells: Mapping[Service, Mapping[Pair, bool]], family: int) -> Step:
    expectations = tuple(Expectation(services=(service,), families=(family,), cells=dict(pairs)) for service, pairs in cells.items())
    return Step(actions=tuple(actions), expectations=expectations)


def _change(objects: Objects, step: Raw, family: int) -> Action:
    if step["op"] == "set_namespace_labels":
        return LabelNamespace(name=step["namespace"], set=step["labels"])
    if step["op"] == "delete":
        del objects[step["kind"], step["name"]]
        return DeletePolicy(name=f"{step['namespace']}/{step['name']}")
    (key,) = [key for key in objects if key[1] == step["policy"] and key[0] != "NetworkPolicy"]
    raw = objects[key] = copy.deepcopy(objects[key])
    rules = raw["spec"].get(step.get("direction"))
    match step["op"]:
        case "set_priority":
            raw["spec"]["priority"] = step["priority"]
        case "set_action":
            rules[step["index"]]["action"] = step["action"]
        case "set_ports" | "set_protocols":
            member = step["op"].removeprefix("set_")
            rules[step["index"]][member] = step[member]
        case "swap_rules":
            rules[step["i"]], rules[step["j"]] = rules[step["j"]], rules[step["i"]]
        case "prepend_rule":
            text = _ADDRESS.sub(lambda found: f"{{{found[1]}:{family}}}", json.dumps(step["rule"]))
            rules.insert(0, json.loads(text))
        case other:
            raise ValueError(f"unknown step {other!r} in the conformance tests of network-policy-api")
    return _apply(raw)


def _apply(raw: Raw) -> Action:
    meta = raw["metadata"]
    if raw["kind"] == "NetworkPolicy":
        return ApplyPolicy(policy=f"{meta['namespace']}/{meta['name']}", spec=copy.deepcopy(raw["spec"]))
    return ApplyClusterPolicy(kind=raw["kind"], name=meta["name"], spec=copy.deepcopy(raw["spec"]))
