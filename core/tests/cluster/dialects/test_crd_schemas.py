"""The dialects of cluster policies against the definitions themselves: for each constraint, objects on either side of it.

The definitions are not part of this repository: ``pytest --polyplane-corpus DIRECTORY``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from crd_schema import RULES, constraints, errors, example, with_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from polyplane.cluster.model import ClusterPolicy
from polyplane.errors import InvalidObject
from polyplane.plugins import dialects
from polyplane_conformance.oracle.cluster_admission import cluster_refusals

FILES = [
    f"{kind}-{channel}.yaml"
    for kind in ("clusternetworkpolicies", "adminnetworkpolicies-v1alpha1", "baselineadminnetworkpolicies-v1alpha1")
    for channel in ("standard", "experimental")
]
PARSE = {(dialect.api_version, dialect.kind): dialect.parse for dialect in dialects()}

#: Where an item that says nothing is no reason to refuse the whole policy: the API's own text wants its rule to fail closed.
EMPTY = {("from", "[]"), ("to", "[]"), ("protocols", "[]"), ("ports", "[]")} | {
    (name, "destinationPort") for name in ("tcp", "udp", "sctp")
}
#: At these edges no range can be written.
NO_RANGE = ("range.start maximum", "range.end minimum")


class Definition:
    """One version of one kind, as its definition says it."""

    def __init__(self, path: Path) -> None:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        (version,) = raw["spec"]["versions"]
        self.api_version, self.kind = f"{raw['spec']['group']}/{version['name']}", raw["spec"]["names"]["kind"]
        whole = version["schema"]["openAPIV3Schema"]
        self.spec = with_examples(whole["properties"]["spec"])
        self.required = whole["required"]
        self.rules = whole.get("x-kubernetes-validations", [])

    def object(self, spec: Any, name: str = "default") -> dict[str, Any]:
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": name}, "spec": spec}

    def parse(self, raw: Any) -> ClusterPolicy | InvalidObject:
        try:
            return PARSE[self.api_version, self.kind](raw)
        except InvalidObject as error:
            return error


@pytest.fixture(params=FILES, scope="module")
def definition(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Definition:
    folder = pytestconfig.getoption("--polyplane-corpus")
    path = None if folder is None else folder / "crds" / "network-policy-api" / request.param
    if path is None or not path.exists():
        pytest.skip("the definitions are not here; give the corpus that has them with --polyplane-corpus")
    return Definition(path)


@cache
def sides(definition: Definition) -> list[tuple[str, dict[str, Any], bool]]:
    """Return objects, each with the constraint it is about and whether it keeps to it."""
    return [
        (f"spec.{'.'.join(path)} {keyword}", definition.object(example(definition.spec, path, value) if path else value), right)
        for path, keyword, good, bad in constraints(definition.spec)
        for values, right in ((good, True), (bad, False))
        for value in values
    ]


def test_every_constraint_is_kept(definition: Definition) -> None:
    wrong, seen = [], set()
    for about, raw, right in sides(definition):
        if right and about.endswith(NO_RANGE):
            continue
        # First of all the objects themselves must be what they are made to be.
        assert (not errors(definition.spec, raw["spec"])) is right, f"{about}: {raw['spec']}"
        policy = definition.parse(raw)
        place, _, keyword = about.rpartition(" ")
        seen.add(keyword)
        if keyword == "minProperties" and tuple(place.split(".")[-2:]) in EMPTY and not right:
            if not (isinstance(policy, ClusterPolicy) and policy.unsupported):
                wrong.append(f"{about}: {raw['spec']} does not fail closed, {policy}")
            continue
        if isinstance(policy, ClusterPolicy) is not right:
            wrong.append(f"{about}: {raw['spec']} is {'refused, ' + str(policy) if right else 'accepted'}")
        elif isinstance(policy, ClusterPolicy) and bool(policy.unsupported) is not ("domainNames" in str(raw)):
            wrong.append(f"{about}: {raw['spec']} cannot be done, {policy.unsupported}")
        if (not list(cluster_refusals(raw))) is not right:
            wrong.append(f"{about}: the oracle has {raw['spec']} {'refused' if right else 'accepted'}")
    assert not wrong, "\n".join(wrong)
    assert seen >= {"type", "required", "enum", "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum", "maxLength"}
    assert seen >= {"x-kubernetes-list-type", "x-kubernetes-validations"}


def test_the_whole_object(definition: Definition) -> None:
    spec = example(definition.spec)
    assert isinstance(definition.parse(definition.object(spec)), ClusterPolicy)
    assert definition.required == ["metadata", "spec"]
    assert isinstance(definition.parse(definition.object(None)), InvalidObject)
    (*only,) = (RULES[rule["rule"]].holds for rule in definition.rules)
    for name in ("default", "other"):
        raw = definition.object(spec, name)
        assert isinstance(definition.parse(raw), ClusterPolicy) is all(holds(raw) for holds in only)


@settings(max_examples=100)
@given(data=st.data())
def test_what_does_not_fit_is_never_taken_as_it_is(definition: Definition, data: st.DataObject) -> None:
    """Random parts of an object put to random places: what the schema refuses is refused, or the rule around it fails closed."""
    draw, known = data.draw, sides(definition)
    _, raw, _ = draw(st.sampled_from(known))
    for _ in range(draw(st.integers(1, 2))):
        _, other, _ = draw(st.sampled_from(known))
        raw = definition.object(
            _put(raw["spec"], draw(st.randoms(use_true_random=False)), _any_part(other["spec"], draw(st.integers(0, 8))))
        )
    policy, problems = definition.parse(raw), errors(definition.spec, raw["spec"])
    if isinstance(policy, ClusterPolicy) and not policy.unsupported:
        assert not problems
    if isinstance(policy, InvalidObject) and not problems:
        # The one thing we refuse beyond the schema: whom a policy is for must be readable.
        assert policy.field.startswith("spec.subject.")


def _any_part(value: Any, depth: int) -> Any:
    for _ in range(depth):
        inner = [*(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())]
        if not inner:
            break
        value = inner[-1]
    return value


def _put(value: Any, random: Random, part: Any) -> Any:
    """Return a copy of a value in which one part, anywhere, is another."""
    steps = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not steps or random.random() < 0.2:
        return part
    chosen = random.choice(steps)
    if isinstance(value, dict):
        return {step: _put(item, random, part) if step == chosen else item for step, item in value.items()}
    return [_put(item, random, part) if step == chosen else item for step, item in enumerate(value)]
