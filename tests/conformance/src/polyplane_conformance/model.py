"""The model tier: what the compiled program says is what the scenario and the oracle say. No packets, no privileges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from polyplane.ir.evaluate import Evaluation
from polyplane.ir.program import Program
from polyplane.plugins import Dataplane, load_backend
from polyplane.reconcile.diff import diff
from polyplane_conformance.actions import Restart
from polyplane_conformance.cast import HOSTS, plan
from polyplane_conformance.control import ControlPlane, allowed, decide, trail_of, writes_of
from polyplane_conformance.expanders import EXPANDERS
from polyplane_conformance.expectation import Pair, Service
from polyplane_conformance.oracle import Answer, Connection, Oracle
from polyplane_conformance.results import Outcome
from polyplane_conformance.scenario import Scenario
from polyplane_conformance.world import Placement, World, Write, apart, as_written, together

#: Where pods may live without changing what the API says about them, apart from who is whose own node.
PLACEMENTS: Final[Mapping[str, Placement]] = {"as-written": as_written, "together": together, "apart": apart}

#: Asked of every scenario, in addition to its own: each protocol, a port nobody mentions, ICMP.
ALWAYS_ASKED: Final = tuple(Service.parse(text) for text in ("TCP/80", "TCP/81", "UDP/80", "SCTP/81", "TCP/8080", "ICMP"))


class ModelCluster:
    """A scenario's world with every node's program held in memory; each delta goes through the public memory backend."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.control = ControlPlane()
        self.backends: dict[str, Dataplane] = {node: load_backend("memory", {}) for node in self.control.compilers}
        self.programs: dict[str, Program] = {node: Program() for node in self.control.compilers}
        self.notes: list[str] = []
        self.feed(writes_of(world.objects.values()))

    def restart(self) -> None:
        """Forget everything but what the backends hold, and read the cluster again."""
        self.control = ControlPlane()
        before = self.programs
        self.programs = {node: Program() for node in before}
        self.feed([write for writes in self.world.history.values() for write in writes])
        for node, program in self.programs.items():
            if not program.same_content(before[node]):
                self.notes.append(f"{node}: another program after a restart")

    def feed(self, writes: Iterable[Write]) -> None:
        """Take in a batch and bring it into force on all nodes."""
        for node, program in self.control.feed(writes).items():
            program.check()
            backend = self.backends[node]
            backend.apply(diff(self.programs[node], program))
            self.programs[node] = program
            if drifts := backend.audit(program):
                self.notes.append(f"{node}: drift right after an apply: {drifts[0]}")
            if operations := backend.apply(diff(Program(), program)).operations:
                self.notes.append(f"{node}: {operations} operations on applying the same again")


def world_of(scenario: Scenario, placement: Placement = as_written) -> World:
    """Return the scenario's world at its start, with the model's addresses."""
    addresses = scenario.plan or plan(actor for actor in scenario.actors if actor not in HOSTS)
    return World(scenario, addresses, placement=placement)


def check_model(scenario: Scenario, placement: Placement = as_written) -> Outcome:
    """Play a scenario: every expectation, and the oracle on all pairs, against the programs.

    The written expectations hold for the places the scenario chose; elsewhere only the oracle is asked.
    """
    outcome = Outcome()
    cluster = ModelCluster(world_of(scenario, placement))
    world = cluster.world
    for number, step in enumerate(scenario.steps, 1):
        for action in step.actions:
            cluster.feed(world.perform(action))
            if isinstance(action, Restart):
                cluster.restart()
        outcome.notes += cluster.notes
        cluster.notes.clear()
        oracle = Oracle(world.objects.values())
        if placement is as_written:
            for expectation in step.expectations:
                for service in expectation.services:
                    for family in expectation.families:
                        _compare(outcome, cluster, oracle, expectation.cells, step=number, service=service, family=family, judge="written")
        present = _present(world, scenario)
        for service in dict.fromkeys((*(ALWAYS_ASKED if placement is as_written else ()), *scenario.services)):
            for family in (4, 6):
                pairs = [(source, destination) for source in present for destination in present]
                _compare(outcome, cluster, oracle, dict.fromkeys(pairs), step=number, service=service, family=family, judge="oracle")
    return outcome


def _present(world: World, scenario: Scenario) -> list[str]:
    """All actors that play themselves or another now, pods that finished included; hosts where the scenario asks for them, or for nothing."""
    pods = [f"{namespace}/{name}" for kind, namespace, name in world.objects if kind == "Pod"]
    random = not any(step.expectations for step in scenario.steps)
    asked = {actor for actor in HOSTS if random or actor in scenario.actors}
    return [*dict.fromkeys(pods), *sorted(asked)]


def _compare(
    outcome: Outcome,
    cluster: ModelCluster,
    oracle: Oracle,
    expected: Mapping[Pair, bool | None],
    *,
    step: int,
    service: Service,
    family: int,
    judge: str,
) -> None:
    """Compare one matrix; cells whose expected value is None are for the oracle to say."""
    world = cluster.world
    wanted: dict[Pair, bool] = {}
    found: dict[Pair, bool] = {}
    trails: dict[Pair, tuple[str, ...]] = {}
    for pair, written in expected.items():
        evaluations = decide(world, cluster.programs, pair, service, family)
        wanted[pair] = ask(oracle, world, pair, service, family).allowed if written is None else written
        found[pair] = allowed(evaluations)
        if wanted[pair] is not found[pair]:
            trails[pair] = both_trails(ask(oracle, world, pair, service, family), evaluations)
    outcome.compare(step=step, service=service, family=family, expected=wanted, found=found, judge=judge, trails=trails)


def ask(oracle: Oracle, world: World, pair: Pair, service: Service, family: int) -> Answer:
    """Ask the oracle about two actors of a world."""
    source, destination = pair
    return oracle.ask(
        Connection(
            source=world.addresses(source)[family],
            destination=world.addresses(destination)[family],
            protocol=service.protocol,
            port=service.port,
            icmp_type={4: 8, 6: 128}[family] if service.protocol == "ICMP" else None,
        )
    )


def both_trails(answer: Answer, evaluations: Iterable[Evaluation]) -> tuple[str, ...]:
    """Return how the oracle and the program came to their answers, each line with its witness in front."""
    return (*(f"oracle: {line}" for line in answer.trail), *(f"evaluate: {line}" for line in trail_of(evaluations)))


def check_expanders(scenario: Scenario) -> Outcome:
    """Reach every step's state in all ways that `expanders` knows; the programs must be equal."""
    outcome = Outcome()
    world = world_of(scenario)
    straight = ControlPlane()
    batches: list[list[Write]] = [writes_of(world.objects.values())]
    straight.feed(batches[0])
    for number, step in enumerate(scenario.steps, 1):
        for action in step.actions:
            batches.append(world.perform(action))
            straight.feed(batches[-1])
        for name, expander in EXPANDERS.items():
            other = ControlPlane()
            for batch in expander(batches, world.history):
                other.feed(batch)
            for node, program in straight.programs.items():
                outcome.cells += 1
                if not program.same_content(other.programs[node]):
                    outcome.notes.append(f"step {number}: {name} gives {node} another program")
    return outcome


def explain_cell(scenario: Scenario, pair: Pair, service: Service, family: int, *, step: int) -> tuple[str, ...]:
    """Return, line by line, how the oracle and the programs decide about one connection after a step (counted from 1)."""
    cluster = ModelCluster(world_of(scenario))
    for action in (action for one in scenario.steps[:step] for action in one.actions):
        cluster.feed(cluster.world.perform(action))
    answer = ask(Oracle(cluster.world.objects.values()), cluster.world, pair, service, family)
    evaluations = decide(cluster.world, cluster.programs, pair, service, family)
    return (
        f"oracle: {'allow' if answer.allowed else 'deny'}",
        *(f"  {line}" for line in answer.trail),
        f"program: {'allow' if allowed(evaluations) else 'deny'}",
        *(f"  {line}" for line in trail_of(evaluations)),
    )
