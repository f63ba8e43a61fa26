"""What a backend owes polyplane apart from verdicts: enforce, know what it holds, do nothing twice, leave nothing behind.

The netns tier asks the same next to its packets; this module asks it of dataplanes that move none.
"""

from __future__ import annotations

from collections.abc import Callable

from polyplane.ir.program import Program
from polyplane.plugins import Dataplane
from polyplane.reconcile.diff import diff
from polyplane_conformance.cast import NODE
from polyplane_conformance.control import ControlPlane, writes_of
from polyplane_conformance.model import world_of
from polyplane_conformance.results import Outcome
from polyplane_conformance.scenario import Scenario


def check_state(scenario: Scenario, load: Callable[[], Dataplane]) -> Outcome:
    """Play a scenario against a backend; ``load`` makes it anew, with no memory. Whatever was there before is removed."""
    outcome = Outcome()
    dataplane = load()
    dataplane.teardown()
    try:
        world = world_of(scenario)
        control = ControlPlane((NODE,), capabilities=dataplane.require_available())
        program = control.feed(writes_of(world.objects.values()))[NODE]
        dataplane.apply(diff(Program(), program))
        _check(outcome, "the cluster at the start", dataplane, load(), program)
        for number, step in enumerate(scenario.steps, 1):
            target = control.feed(write for action in step.actions for write in world.perform(action))[NODE]
            changed = dataplane.apply(diff(program, target)).operations
            if not changed and dataplane.render(diff(Program(), target)) != dataplane.render(diff(Program(), program)):
                outcome.notes.append(f"step {number}: 0 operations, although what has to be held is another")
            program = target
            _check(outcome, f"step {number}", dataplane, load(), program)
    finally:
        dataplane.teardown()
    outcome.cells += 1
    if left := load().teardown().operations:
        outcome.notes.append(f"{left} operations on a second teardown: the first one left something behind")
    return outcome


def _check(outcome: Outcome, when: str, dataplane: Dataplane, anew: Dataplane, program: Program) -> None:
    outcome.cells += 3
    if drifts := dataplane.audit(program):
        outcome.notes.append(f"{when}: drift right after an apply: {drifts[0]}")
    if operations := dataplane.apply(diff(program, program)).operations:
        outcome.notes.append(f"{when}: {operations} operations on applying the same again")
    if operations := anew.apply(diff(Program(), program)).operations:
        outcome.notes.append(f"{when}: {operations} operations after a restart without memory")
