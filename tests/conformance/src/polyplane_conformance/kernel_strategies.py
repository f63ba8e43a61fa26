"""Hypothesis strategy for scenarios that are played with packets: everything is random but where the pods are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from polyplane_conformance.actions import (
    Action,
    AddPod,
    ApplyClusterPolicy,
    ApplyPolicy,
    DeleteClusterPolicy,
    DeletePolicy,
    FinishPod,
    LabelNamespace,
    LabelPod,
    PodSpec,
    RemovePod,
    Restart,
)
from polyplane_conformance.cluster_strategies import cluster_actions
from polyplane_conformance.scenario import Scenario, Step
from polyplane_conformance.strategies import NAMESPACES, labels, node_labels, pod_specs, policy_specs, selectors

#: The pods: those of x and y on the node under test, the one of z elsewhere.
FUZZED: Final = ("x/a", "x/b", "y/a", "y/b", "z/a")
#: The one that comes and goes, and the one that may get its addresses then.
_LEAVER: Final = "y/b"
_HEIR: Final = "y/heir"
_CHANGES: Final = (
    *("apply", "apply", "delete", "cluster", "cluster", "delete-cluster"),
    *("label-pod", "label-namespace", "label-node", "come-or-go", "come-or-go", "restart"),
)


def _subjects() -> SearchStrategy[dict[str, Any]]:
    """Selectors of namespaces whose pods are all on the node under test: there is where everything is enforced."""
    ours = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["x", "y"]}
    return selectors().map(lambda selector: {**selector, "matchExpressions": [*selector.get("matchExpressions", ()), ours]})


@dataclass(slots=True)
class _Present:
    """What is there after the actions so far."""

    pods: set[str] = field(default_factory=lambda: set(FUZZED))
    policies: set[str] = field(default_factory=set)
    cluster_policies: set[tuple[str, str]] = field(default_factory=set)

    def follow(self, action: Action) -> None:
        match action:
            case ApplyPolicy():
                self.policies.add(action.policy)
            case DeletePolicy():
                self.policies.discard(action.name)
            case ApplyClusterPolicy():
                self.cluster_policies.add((action.kind, action.name))
            case DeleteClusterPolicy():
                self.cluster_policies.discard((action.kind, action.name))
            case AddPod():
                self.pods.add(action.pod)
            case RemovePod() | FinishPod():
                self.pods.discard(action.pod)
            case _:
                """The rest adds and removes nothing."""


@st.composite
def _policies(draw: st.DrawFn) -> Action:
    return ApplyPolicy(policy=f"{draw(st.sampled_from('xy'))}/p{draw(st.integers(0, 2))}", spec=draw(policy_specs()))


@st.composite
def _changes(draw: st.DrawFn, present: _Present) -> Action:
    match draw(st.sampled_from(_CHANGES)):
        case "delete" if present.policies:
            return DeletePolicy(name=draw(st.sampled_from(sorted(present.policies))))
        case "delete-cluster" if present.cluster_policies:
            kind, name = draw(st.sampled_from(sorted(present.cluster_policies)))
            return DeleteClusterPolicy(kind=kind, name=name)
        case "cluster" | "delete-cluster":
            return draw(cluster_actions(selectors(), _subjects()))
        case "label-pod":
            return LabelPod(pod=draw(st.sampled_from(sorted(present.pods))), set=draw(labels()))
        case "label-namespace" | "label-node" as kind:
            namespaces = st.builds(LabelNamespace, name=st.sampled_from(NAMESPACES), set=labels(), drop=labels().map(tuple))
            return draw(namespaces if kind == "label-namespace" else node_labels())
        case "come-or-go":
            return draw(_move(present))
        case "restart":
            return Restart(what="agent")
        case _:
            return draw(_policies())


@st.composite
def _move(draw: st.DrawFn, present: _Present) -> Action:
    """One pod leaves; it comes back, or another of other labels gets its addresses."""
    here = next((pod for pod in (_LEAVER, _HEIR) if pod in present.pods), None)
    if here == _LEAVER:
        return FinishPod(pod=here) if draw(st.booleans()) else RemovePod(pod=here)
    if here == _HEIR:
        return RemovePod(pod=here)
    spec = draw(pod_specs())
    return AddPod(pod=_HEIR, labels=spec.labels, containers=spec.containers, node="local", plays=_LEAVER)


@st.composite
def kernel_scenarios(draw: st.DrawFn) -> Scenario:
    """Scenarios for one and the same sandbox: labels, declared ports, policies of all kinds and changes are random, places are not."""
    tiers = draw(st.lists(cluster_actions(selectors(), _subjects()), max_size=3))
    first: list[Action] = [draw(_policies()) for _ in range(draw(st.integers(0 if tiers else 1, 3)))]
    steps = [Step(actions=(*first, *tiers), expectations=())]
    present = _Present()
    for action in steps[0].actions:
        present.follow(action)
    for _ in range(draw(st.integers(0, 4))):
        actions = []
        for _ in range(draw(st.sampled_from((1, 1, 2)))):
            actions.append(draw(_changes(present)))
            present.follow(actions[-1])
        steps.append(Step(actions=tuple(actions), expectations=()))
    return Scenario(
        name="fuzz/random",
        description="a random cluster",
        namespaces={name: {"ns": name, **draw(labels())} for name in NAMESPACES},
        pods={pod: _placed(draw(pod_specs()), pod) for pod in FUZZED},
        steps=tuple(steps),
    )


def _placed(spec: PodSpec, pod: str) -> PodSpec:
    labels = {"pod": pod.partition("/")[2], **(spec.labels or {})}
    return PodSpec(labels=labels, containers=spec.containers, node="remote" if pod == "z/a" else "local")
