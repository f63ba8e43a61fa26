from __future__ import annotations

from dataclasses import replace

from polyplane_conformance.actions import ApplyClusterPolicy, ApplyPolicy, RemovePod
from polyplane_conformance.generate import generate
from polyplane_conformance.scenario import Scenario, Step
from polyplane_conformance.shrink import playable, shrink


def rules(scenario: Scenario) -> list[object]:
    actions = [action for step in scenario.steps for action in step.actions]
    return [rule for action in actions if isinstance(action, ApplyPolicy) for rule in action.spec.get("ingress", ())]


def test_what_matters_stays_and_nothing_else() -> None:
    """Of the largest case with an exception in a block, only that is left."""
    case = max((one for one in generate(0) if "except" in str(rules(one))), key=lambda one: len(str(one.steps)))
    small = shrink(case, lambda candidate: "except" in str(rules(candidate)), plays=1000)
    (step,) = small.steps
    (action,) = step.actions
    assert isinstance(action, ApplyPolicy)
    assert list(action.spec) in (["podSelector", "ingress"], ["ingress", "podSelector"])
    ((peer,),) = [rule["from"] for rule in action.spec["ingress"]]
    assert len(peer["ipBlock"]["except"]) <= 1


def test_only_what_can_be_played_is_tried() -> None:
    case = generate(0)[0]
    once = replace(case, steps=(*case.steps, Step(actions=(RemovePod(pod="z/c"),), expectations=())))
    assert playable(once)
    assert not playable(replace(once, steps=(*once.steps, once.steps[-1])))
    asked: list[Scenario] = []
    shrink(replace(once, steps=(*once.steps, once.steps[-1])), lambda candidate: bool(asked.append(candidate)), plays=100)
    assert asked
    assert all(playable(candidate) for candidate in asked)


def test_the_subject_of_a_cluster_policy_stays_whole() -> None:
    """Its expressions keep pods out that no backend under test enforces for."""
    subject = {"namespaces": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["x", "y"]}]}}
    spec = {"subject": subject, "egress": [{"action": "Deny", "to": [{"namespaces": {}}]}, {"action": "Allow", "to": [{"namespaces": {}}]}]}
    policy = ApplyClusterPolicy(kind="BaselineAdminNetworkPolicy", name="default", spec=spec)
    case = replace(generate(0)[0], steps=(Step(actions=(policy,), expectations=()),))
    ((left,),) = [step.actions for step in shrink(case, lambda _: True, plays=1000).steps]
    assert isinstance(left, ApplyClusterPolicy)
    assert left.spec == {"subject": subject}
