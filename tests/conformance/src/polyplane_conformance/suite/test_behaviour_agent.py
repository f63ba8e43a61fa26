"""Behaviour: the agent as a process of its own, started, killed, started again, while packets fly."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from polyplane_conformance.actions import DeletePolicy
from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.sandbox import Barrage
from polyplane_conformance.stage import AgentProcess, Stage, only_from, pod, policy, wait_for

pytestmark = [pytest.mark.tier("netns"), pytest.mark.netns]

DOOR = policy("x/door", podSelector=pod("a"), ingress=only_from("b"))


def _barrage(stage: Stage) -> Barrage:
    """100 probes a second: permitted, forbidden and unconcerned ones, over both IP versions."""
    pairs = {("x/b", "x/a"): True, ("x/c", "x/a"): False, ("y/a", "x/a"): False, ("y/a", "y/b"): True}
    expected = {
        Probe(source=source, destination=target, traffic=Traffic.parse(service, family)): passes
        for (source, target), passes in pairs.items()
        for service in ("TCP/80", "UDP/80")
        for family in (4, 6)
    }
    return stage.sandbox.barrage(expected, 100)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_restart_is_hitless(stage: Stage, tmp_path: Path, end: signal.Signals) -> None:
    """From the end of one agent to the work of the next, no permitted probe is lost and no forbidden one passes."""
    stage.begin(DOOR)
    stage.rig.dataplane.teardown()
    with AgentProcess(stage, tmp_path) as agent:
        agent.write()
        agent.start()
        stage.expect(allowed=["x/b -> x/a"], denied=["x/c -> x/a"])
        with _barrage(stage) as barrage:
            time.sleep(0.5)
            agent.stop(end)
            time.sleep(0.7)
            agent.start()
            time.sleep(0.7)
        report = barrage.stop()
    assert report.clean, str(report)
    assert len(report.shots) > 150


def test_changed_while_the_agent_was_down(stage: Stage, tmp_path: Path) -> None:
    """What changed while no agent ran is in force after its start; what was in force stays until then."""
    stage.begin(DOOR)
    stage.rig.dataplane.teardown()
    with AgentProcess(stage, tmp_path) as agent:
        agent.write()
        agent.start()
        agent.stop(signal.SIGKILL)
        stage.world.perform(policy("x/door", podSelector=pod("a"), ingress=only_from("c")))
        agent.write()
        stage.expect(allowed=["x/b -> x/a"], denied=["x/c -> x/a"])
        agent.start()
        stage.expect(allowed=["x/c -> x/a"], denied=["x/b -> x/a"])


def test_files_are_followed(stage: Stage, tmp_path: Path) -> None:
    """Edits take effect while the agent runs; a broken file keeps what it last said, and its repair counts."""
    if stage.rig.source != "direct":
        pytest.skip("this is about files, and the agent follows an API server")
    stage.begin(DOOR)
    stage.rig.dataplane.teardown()

    def passes(source: str) -> bool:
        return stage.outcome(source, "x/a") is Outcome.ALLOWED

    with AgentProcess(stage, tmp_path) as agent:
        agent.write()
        agent.start()
        stage.world.perform(policy("x/door", podSelector=pod("a"), ingress=only_from("c")))
        agent.write()
        wait_for(lambda: passes("x/c") and not passes("x/b"), "the edited policy")
        file = agent.directory / "NetworkPolicy-x-door.json"
        sound = file.read_text(encoding="utf-8")
        file.write_text(sound[: len(sound) // 2], encoding="utf-8")
        time.sleep(1)
        stage.expect(allowed=["x/c -> x/a"], denied=["x/b -> x/a"])
        file.write_text(sound.replace('"c"', '"b"'), encoding="utf-8")
        wait_for(lambda: passes("x/b") and not passes("x/c"), "the repaired policy")
        stage.world.perform(DeletePolicy(name="*"))
        agent.write()
        wait_for(lambda: passes("x/c"), "the deleted policy")


def test_drift_heals_by_itself(stage: Stage, tmp_path: Path) -> None:
    """Whatever another program does to our state, the agent finds and repairs it."""
    damages = stage.damages()
    stage.begin(DOOR)
    stage.rig.dataplane.teardown()
    with AgentProcess(stage, tmp_path) as agent:
        agent.write()
        agent.start()
        # not nothing: the agent has looked up what other addresses its node has
        sound = stage.rig.dataplane.audit(stage.rig.program)
        for damage in damages:
            stage.run(*damage.command)
            wait_for(lambda: stage.outcome("x/c", "x/a") is Outcome.DENIED and stage.outcome("x/b", "x/a") is Outcome.ALLOWED, damage.name)
            wait_for(lambda: stage.rig.dataplane.audit(stage.rig.program) == sound, f"no drift after: {damage.name}")
