from __future__ import annotations

from dataclasses import replace

from polyplane_conformance.actions import ApplyPolicy, RemovePod
from polyplane_conformance.generate import generate
from polyplane_conformance.scenario import Scenario, Step
from polyplane_conformance.shrink import playable, shrink


def rules(scenario: Scenario) -> list[object]:
    actions = [action for step in scenario.steps for action in step.actions]
    return [rule for action in actions if isinstance(action, ApplyPolicy) for rule in action.spec.get("ingress", ())]


def test_what_matters_stays_and_nothing_else() -> None:
    """Of the largest case with an exception in a block, only that is left."""
    case = max((one for one in generate(0) if "except" in str(rules(one))), key=lambda one: len(str(one.steps)))
    small = shrink(case, lambda candidate: "except" in str(rules(candidate)), seconds=30)
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
    shrink(replace(once, steps=(*once.steps, once.steps[-1])), lambda candidate: bool(asked.append(candidate)), seconds=5)
    assert asked
    assert all(playable(candidate) for candidate in asked)
