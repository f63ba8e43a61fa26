"""Differential fuzzing with packets: random clusters and policies, all backends at once in twin sandboxes, every pair probed.

Four views of each cell must agree: the oracle, `evaluate` on the whole program, `evaluate` on what each backend was given, and
the packets. A backend that cannot do something may deny more than the oracle allows, as its own program says; never less.
Hypothesis draws, `polyplane_conformance.shrink` leaves out what does not matter; what is left of a disagreement is a scenario that can be committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, Self

from hypothesis import HealthCheck, Phase, given, seed, settings

from polyplane.ir.program import Program
from polyplane_conformance.cast import NODE, NODE_ACTOR, OUTSIDE, REMOTE_NODE_ACTOR
from polyplane_conformance.control import ControlPlane, allowed, decide, writes_of
from polyplane_conformance.expectation import Pair, Service
from polyplane_conformance.foresee import SERVICES, foresee, pairs_of
from polyplane_conformance.kernel_strategies import FUZZED, kernel_scenarios
from polyplane_conformance.model import ask, both_trails
from polyplane_conformance.oracle import Oracle
from polyplane_conformance.plugin import Backend
from polyplane_conformance.probe.model import Outcome as ProbeOutcome
from polyplane_conformance.probe.model import Result
from polyplane_conformance.rig import Rig, topology_of
from polyplane_conformance.scenario import Scenario
from polyplane_conformance.shrink import shrink
from polyplane_conformance.world import World

#: Scenarios that hypothesis draws with one seed, before the next seed follows.
BATCH: Final = 40
#: How often a finding is played to make it smaller, at most.
SHRINKING: Final = 300
#: Who is asked besides pods.
OTHERS: Final = (OUTSIDE, NODE_ACTOR, REMOTE_NODE_ACTOR)
ACTORS: Final = (*FUZZED, *OTHERS)

Cell = tuple[Pair, Service, int]


@dataclass(slots=True)
class Figures:
    """What has been done so far: scenarios played, steps of them, probes sent, disagreements."""

    scenarios: int = 0
    steps: int = 0
    probes: int = 0
    findings: int = 0

    def __str__(self) -> str:
        return f"{self.scenarios} scenarios, {self.steps} steps, {self.probes} probes, {self.findings} disagreements"


@dataclass(frozen=True, slots=True)
class Finding:
    """A scenario on which somebody disagrees, as small as could be found in the time, and who says what."""

    scenario: Scenario
    problems: tuple[str, ...]
    #: Whether it showed again when it was played again.
    steady: bool = True


@dataclass
class Fuzzer:
    """Twin sandboxes, one for each backend, alike to the last address; a context manager.

    :ivar figures: grow while `run` goes on
    """

    backends: tuple[Backend, ...]
    figures: Figures = field(default_factory=Figures)
    _rigs: dict[str, Rig] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._pool = self._stack.enter_context(ThreadPoolExecutor(max_workers=len(self.backends) or 1))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, first_seed: int, seconds: float, progress: Callable[[Figures], None] = lambda _: None) -> Iterator[Finding]:
        """Play for so long; yield every finding, shrunk (which takes its own time). The next seed follows each finding."""
        deadline = time.monotonic() + seconds
        for number in count(first_seed):
            if time.monotonic() >= deadline:
                return
            finding = self._batch(number, deadline, progress)
            if finding is not None:
                self.figures.findings += 1
                yield finding

    def _batch(self, number: int, deadline: float, progress: Callable[[Figures], None]) -> Finding | None:
        """Play what one seed gives, up to the first disagreement."""
        found: list[Finding] = []

        @seed(number)
        @settings(max_examples=BATCH, deadline=None, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
        @given(kernel_scenarios())
        def try_one(scenario: Scenario) -> None:
            if found or time.monotonic() >= deadline:
                return
            problems = self.play(scenario)
            progress(self.figures)
            if problems:
                found.append(Finding(scenario, tuple(problems)))

        try_one()
        return self._reduce(found[0], number) if found else None

    def _reduce(self, finding: Finding, number: int) -> Finding:
        """Make a finding small, and foretell what should have come of it."""
        problems = finding.problems

        def fails(scenario: Scenario) -> bool:
            nonlocal problems
            now = self.play(scenario)
            problems = tuple(now) or problems
            return bool(now)

        steady = fails(finding.scenario)
        small = shrink(finding.scenario, fails, SHRINKING) if steady else finding.scenario
        named = replace(small, name=f"fuzz/seed-{number}", description=f"Found by seed {number}.")
        return Finding(foresee(named, OTHERS), problems, steady=steady)

    # --- one scenario ----------------------------------------------------------------------------------------------------

    def play(self, scenario: Scenario) -> list[str]:
        """Play a scenario on all backends at once; return what disagrees in the first step where something does."""
        rigs = self._ready(scenario)
        worlds = dict(zip(rigs, self._pool.map(lambda rig: rig.begin(scenario), rigs.values()), strict=True))
        reference = ControlPlane((NODE,))
        witness = World(scenario, next(iter(worlds.values())).plan)
        reference.feed(writes_of(witness.objects.values()))
        self.figures.scenarios += 1
        for number, step in enumerate(scenario.steps, 1):
            self.figures.steps += 1
            for action in step.actions:
                reference.feed(witness.perform(action))
                list(self._pool.map(lambda name, now=action: rigs[name].act(worlds[name], now), rigs))
            if problems := self._look(rigs, worlds, witness, reference.programs):
                return [f"step {number}: {problem}" for problem in problems]
        return []

    def _look(self, rigs: Mapping[str, Rig], worlds: Mapping[str, World], witness: World, programs: Mapping[str, Program]) -> list[str]:
        cells = self._cells()
        oracle = Oracle(witness.objects.values())
        problems: list[str] = []
        expected: dict[Cell, bool] = {}
        for pair, service, family in cells:
            answer = ask(oracle, witness, pair, service, family)
            said = decide(witness, programs, pair, service, family)
            expected[pair, service, family] = answer.allowed
            if answer.allowed is not allowed(said):
                problems.append("\n    ".join([f"the program is wrong about {_text(pair, service, family)}", *both_trails(answer, said)]))
        results = self._pool.map(lambda name: (name, rigs[name].probe(worlds[name], cells)), rigs)
        for name, found in results:
            self.figures.probes += len(found)
            given_to = {NODE: rigs[name].program}
            for cell, result in zip(cells, found, strict=True):
                said = decide(worlds[name], given_to, *cell)
                verdict = _verdict(result, expected=expected[cell], by_program=allowed(said))
                if verdict:
                    why = both_trails(ask(oracle, witness, *cell), said)
                    problems.append("\n    ".join([f"{name}: {_text(*cell)} {verdict}", *why]))
        upkeep = self._pool.map(lambda name: [f"{name}: {problem}" for problem in rigs[name].upkeep()], rigs)
        return [*problems, *(problem for found in upkeep for problem in found)]

    @staticmethod
    def _cells() -> list[Cell]:
        return [(pair, service, family) for pair in pairs_of(ACTORS) for service in SERVICES for family in (4, 6)]

    def _ready(self, scenario: Scenario) -> Mapping[str, Rig]:
        """Return the rigs, built at the first scenario and proven to let everything pass while no policy is there."""
        topology = topology_of(scenario)
        if not self._rigs:
            for backend in self.backends:
                rig = Rig(topology, backend)
                self._stack.callback(rig.close)
                self._rigs[backend.name] = rig
                world = rig.begin(replace(scenario, steps=()))
                broken = [
                    (cell, result)
                    for cell, result in zip(self._cells(), rig.probe(world, self._cells()), strict=True)
                    if not result.allowed
                ]
                assert not broken, f"{backend}: without any policy, {_text(*broken[0][0])} {broken[0][1].outcome} {broken[0][1].detail}"
        assert all(rig.topology == topology for rig in self._rigs.values()), "fuzzed clusters live in one topology"
        return self._rigs


def _verdict(result: Result, *, expected: bool, by_program: bool) -> str:
    """Return what is wrong with a probe's result, empty if nothing."""
    if result.outcome is ProbeOutcome.BROKEN:
        return f"has no verdict: {result.detail}"
    if result.allowed and not expected:
        return "passes and must not"
    if result.allowed is not by_program:
        return f"{'passes' if result.allowed else 'is stopped'}, other than the backend's own program says"
    return ""


def _text(pair: Pair, service: Service, family: int) -> str:
    return f"{service} over IPv{family} from {pair[0]} to {pair[1]}"
