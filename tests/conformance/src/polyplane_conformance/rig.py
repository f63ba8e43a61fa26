"""`Rig`: a sandbox, its node enforced by the backend on trial, and a cluster that changes.

The whole way of the data is the real one: raw objects to the store, the compiler, `diff`, the backend's `apply`. Only the
source is missing, which the behaviours that start a real agent have.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from polyplane.hookspecs import Applied
from polyplane.ir.program import Options, Program
from polyplane.plugins import Dataplane, load_backend
from polyplane.reconcile.diff import diff
from polyplane_conformance.actions import Action, AddPod, PodSpec, Restart
from polyplane_conformance.cast import NODE, NODE_ACTOR, OUTSIDE, PODS, REMOTE_NODE, REMOTE_NODE_ACTOR, UNDERSTUDIES, plan
from polyplane_conformance.control import PROTOCOLS, ControlPlane, writes_of
from polyplane_conformance.delivery import make_delivery
from polyplane_conformance.evidence import evidence
from polyplane_conformance.expectation import Expectation, Pair, Service
from polyplane_conformance.plugin import Backend
from polyplane_conformance.probe.model import Outcome as ProbeOutcome
from polyplane_conformance.probe.model import Probe, Result, Traffic
from polyplane_conformance.results import Outcome
from polyplane_conformance.sandbox import HostSpec, NodeSpec, Port, Sandbox, Topology
from polyplane_conformance.sandbox import PodSpec as Place
from polyplane_conformance.scenario import Scenario, load_scenarios, read_scenarios
from polyplane_conformance.world import World, Write

#: The cast and nothing else: what behaviours are played on.
BARE: Final[Scenario] = next(iter(read_scenarios("{name: behaviour/bare, description: the cast, steps: []}", where="stage")))
#: What a sandbox calls the actors that are no pods.
PLACES: Final[Mapping[str, str]] = {NODE_ACTOR: NODE, REMOTE_NODE_ACTOR: REMOTE_NODE, OUTSIDE: OUTSIDE}


def topology_of(scenario: Scenario) -> Topology:
    """Return where a scenario's pods are; the same value for scenarios that can share a sandbox."""
    specs: dict[str, PodSpec] = {pod: PodSpec() for pod in (*PODS, *UNDERSTUDIES)} | dict(scenario.pods)
    specs |= {action.pod: action for step in scenario.steps for action in step.actions if isinstance(action, AddPod)}
    places = {pod: spec for pod, spec in specs.items() if spec.plays is None and not spec.host_network}
    addresses = scenario.plan or plan(places)
    known = {pod: addresses.addresses[pod] for pod in places if pod in addresses.addresses}
    ports = _ports([*load_scenarios(), scenario] if scenario.plan is None else [scenario])
    pods = tuple(
        Place(
            namespace=pod.partition("/")[0],
            name=pod.partition("/")[2],
            addresses=tuple(own.values()),
            node=REMOTE_NODE if places[pod].node == "remote" else "",
            ports=ports,
        )
        for pod, own in sorted(known.items())
    )
    nodes = tuple(
        NodeSpec(name=PLACES[actor], addresses=tuple(addresses.of(actor).values()), ports=ports)
        for actor in (NODE_ACTOR, REMOTE_NODE_ACTOR)
    )
    return Topology(pods=pods, nodes=nodes, hosts=(HostSpec(name=OUTSIDE, addresses=tuple(addresses.of(OUTSIDE).values()), ports=ports),))


def _ports(scenarios: Iterable[Scenario]) -> tuple[Port, ...]:
    asked = {service for scenario in scenarios for service in scenario.services if service.port is not None}
    return tuple(Port(PROTOCOLS[service.protocol], service.port or 0) for service in sorted(asked, key=str))


def traffic_of(service: Service, family: int) -> Traffic:
    """Return what the prober calls a service."""
    return Traffic.parse(str(service), family)


def knows_interfaces(scenario: Scenario) -> bool:
    """Whether pods tell their host-side interface: in two of three scenarios, so that both ways are tried and always the same."""
    return scenario is BARE or zlib.crc32(scenario.name.encode()) % 3 != 0


class Rig:
    """A built sandbox and the backend on trial on its node. Scenarios play one after the other; `reset` lies between them."""

    def __init__(self, topology: Topology, backend: Backend, source: str = "direct") -> None:
        self.topology = topology
        self.backend = backend
        self.source = source
        self.delivery = make_delivery(source)
        self.sandbox = Sandbox.build(topology, backend.gaps.wiring)
        #: Pod to its host-side interface.
        self.interfaces = {pod.id: pod.host_interface for pod in topology.pods_of(NODE)}
        self.dataplane = self.load()
        self.program = Program()
        self.control: ControlPlane = ControlPlane((NODE,))
        #: Cells that have been seen to pass while nothing was enforced.
        self._proven: set[tuple[Pair, Service, int]] = set()

    def close(self) -> None:
        """Remove what the backend made, some of which may outlive its node's namespace, and the sandbox."""
        self.delivery.close()
        try:
            self.dataplane.teardown()
        finally:
            self.sandbox.close()

    def load(self) -> Dataplane:
        """Make the backend anew, as a started agent would: with no memory."""
        return load_backend(self.backend.name, {**self.sandbox.backend_options(), **self.backend.options})

    def begin(self, scenario: Scenario, *, options: Options | None = None) -> World:
        """Forget everything, set up a scenario's cluster and enforce it."""
        self.dataplane.teardown()
        self.dataplane = self.load()
        self.program = Program()
        addresses = scenario.plan or plan(pod.id for pod in self.topology.pods)
        world = World(scenario, addresses, interfaces=self.interfaces if knows_interfaces(scenario) else {})
        self.control = ControlPlane((NODE,), capabilities=self.dataplane.require_available(), options=options)
        self.delivery.begin()
        self.feed(writes_of(world.objects.values()))
        return world

    def act(self, world: World, *actions: Action) -> Applied:
        """Carry out actions and enforce the result, all in one delta."""
        writes = [write for action in actions for write in world.perform(action)]
        if any(isinstance(action, Restart) for action in actions):
            self.restart(world)
        return self.feed(writes)

    def feed(self, writes: Iterable[Write]) -> Applied:
        """Enforce the cluster after these writes."""
        return self.enforce(self.control.follow(self.delivery.deliver(writes))[NODE])

    def enforce(self, program: Program) -> Applied:
        """Bring a program into force."""
        applied = self.dataplane.apply(diff(self.program, program))
        self.program = program
        return applied

    def restart(self, world: World) -> Applied:
        """Start again without memory: read the cluster, compile, apply with an empty base; returns what that changed."""
        self.dataplane = self.load()
        self.control = ControlPlane((NODE,), capabilities=self.dataplane.require_available(), options=self.program.options)
        writes = [write for history in world.history.values() for write in history]
        self.program = Program()
        return self.enforce(self.control.follow(self.delivery.restart(writes))[NODE])

    # --- probing

    def probe(self, world: World, cells: Iterable[tuple[Pair, Service, int]]) -> list[Result]:
        """Probe cells, all at once."""
        return self.sandbox.probe(
            Probe(source=self.place(world, source), destination=self.place(world, target), traffic=traffic_of(service, family))
            for (source, target), service, family in cells
        )

    @staticmethod
    def place(world: World, actor: str) -> str:
        """Return where an actor's packets come from: it may play another, or share its node's network."""
        actor = world.actor(actor)
        return PLACES.get(actor, actor)

    def check(self, world: World, expectations: Iterable[Expectation], outcome: Outcome, *, step: int) -> None:
        """Probe what a step's expectations ask, all in one go, since the proof of a denial is mostly waiting; then compare."""
        asked = [(expectation, self._cells(world, expectation)) for expectation in expectations]
        cells = list(dict.fromkeys(cell for _, own in asked for cell in own))
        results = dict(zip(cells, self.probe(world, cells), strict=True))
        for expectation, own in asked:
            self._compare(world, expectation, {cell: results[cell] for cell in own}, outcome, step=step)

    def _cells(self, world: World, expectation: Expectation) -> list[tuple[Pair, Service, int]]:
        pairs = [pair for pair in expectation.cells if self.place(world, pair[0]) != self.place(world, pair[1])]
        return [(pair, service, family) for service in expectation.services for family in expectation.families for pair in pairs]

    def _compare(
        self, world: World, expectation: Expectation, results: Mapping[tuple[Pair, Service, int], Result], outcome: Outcome, *, step: int
    ) -> None:
        pairs = list(dict.fromkeys(pair for pair, _, _ in results))
        for service in expectation.services:
            for family in expectation.families:
                layer = {pair: results[pair, service, family] for pair in pairs}
                for pair, result in layer.items():
                    if result.outcome is ProbeOutcome.BROKEN:
                        said = f"step {step}: {service} over IPv{family} from {pair[0]} to {pair[1]}: {result.detail or 'no verdict'}"
                        witnesses = evidence(world, self.dataplane, self.program, (pair, service, family))
                        outcome.notes.append("\n    ".join((said, *witnesses)))
                sound = {pair: result for pair, result in layer.items() if result.outcome is not ProbeOutcome.BROKEN}
                outcome.compare(
                    step=step,
                    service=service,
                    family=family,
                    expected={pair: expectation.cells[pair] for pair in sound},
                    found={pair: result.allowed for pair, result in sound.items()},
                    judge="written",
                    trails={
                        pair: (
                            f"packets: {result.detail or result.outcome}",
                            *evidence(world, self.dataplane, self.program, (pair, service, family)),
                        )
                        for pair, result in sound.items()
                        if result.allowed is not expectation.cells[pair]
                    },
                )

    def upkeep(self) -> Iterator[str]:
        """Yield what is wrong besides verdicts: applying again changes nothing, the audit is content, and so is the witness.

        Applying again would repair what a change itself has left undone, so packets are sent before.
        """
        if operations := self.dataplane.apply(diff(Program(), self.program)).operations:
            yield f"{operations} operations on applying the same again"
        if drifts := self.dataplane.audit(self.program):
            yield f"drift right after an apply: {drifts[0]}"
        for difference in self.backend.gaps.differences(self.program, str(self.sandbox.node_netns)):
            yield f"another tool sees otherwise: {difference}"

    def prove(self, world: World, scenario: Scenario, outcome: Outcome) -> None:
        """See that everything the scenario will ask passes while no policy is there; what passed once in this sandbox is not asked again."""
        later = {
            action.pod: action.plays for step in scenario.steps for action in step.actions if isinstance(action, AddPod) and action.plays
        }
        wanted = {
            (pair, service, family)
            for step in scenario.steps
            for expectation in step.expectations
            for service in expectation.services
            for family in expectation.families
            for pair in (tuple(later.get(actor, world.actor(actor)) for actor in cell) for cell in expectation.cells)
            if len(pair) == 2 and self.place(world, pair[0]) != self.place(world, pair[1])
        }
        open_questions = sorted(wanted - self._proven, key=str)
        for cell, result in zip(open_questions, self.probe(world, open_questions), strict=True):
            outcome.cells += 1
            if result.allowed:
                self._proven.add(cell)
            else:
                (source, target), service, family = cell
                outcome.notes.append(
                    f"baseline: {service} over IPv{family} from {source} to {target} is {result.outcome} without any policy: {result.detail}"
                )


def play(rig: Rig, scenario: Scenario, *, record: Path | None = None) -> Outcome:
    """Play a scenario with packets: baseline, steps, and after each step `Rig.upkeep`.

    :param record: folder to write a pcap file of all packets on the node into
    """
    if record is not None:
        record.mkdir(parents=True, exist_ok=True)
        with rig.sandbox.capture(NODE, record / f"{scenario.name.replace('/', '-')}-{rig.backend}.pcap"):
            return play(rig, scenario)
    outcome = Outcome()
    world = rig.begin(scenario)
    rig.prove(world, scenario, outcome)
    for number, step in enumerate(scenario.steps, 1):
        for action in step.actions:
            rig.act(world, action)
        rig.check(world, step.expectations, outcome, step=number)
        outcome.notes += [f"step {number}: {problem}" for problem in rig.upkeep()]
    return outcome


class Rigs:
    """Built rigs by topology; only the latest is kept, so that equal topologies in a row share one."""

    def __init__(self, source: str = "direct") -> None:
        self._source = source
        self._key: tuple[str, str] | None = None
        self._rig: Rig | None = None

    def get(self, topology: Topology, backend: Backend) -> Rig:
        """Return a rig for the topology, built now unless the last one was for the same."""
        key = (str(topology), f"{backend.name} {backend.options}")
        if self._rig is None or self._key != key:
            self.close()
            self._rig, self._key = Rig(topology, backend, self._source), key
        return self._rig

    def close(self) -> None:
        """Remove the rig that is left."""
        if self._rig is not None:
            self._rig.close()
        self._rig = self._key = None
