"""One case of the core section, in a process of its own so that peak memory is its own: reads a shape, prints figures.

The real `Loop` with the real store and compiler, in front of a backend that does nothing. Objects come as a source hands them
on, already decoded, and are made in small lots whose making is not counted.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from polyplane import logs
from polyplane.agent import keep_what_there_is
from polyplane.cluster.model import RemoveObject, SourceEvent
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.config import LogFormat, LogLevel
from polyplane.hookspecs import Applied, Drift, RuleCount, hookimpl
from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import ChangeMembers, Delta
from polyplane.ir.features import ALL_FEATURES, Capabilities
from polyplane.ir.program import Program
from polyplane.plugins import Dataplane, dialects, load_observers
from polyplane.reconcile.loop import Loop, Timing
from polyplane_bench.cluster import APPS, NODE, Raw, Shape, SyntheticCluster, key_of, put

#: Objects made at a time, outside the measured time.
_LOT: Final = 1000
OBSERVERS: Final = ("log", "metrics")


class NoDataplane:
    """A backend that takes everything and does nothing; keeps the last delta for the one who measures."""

    delta: Delta | None = None

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        return ALL_FEATURES

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        return str(len(delta.operations))

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        self.delta = delta
        return Applied(operations=len(delta.operations))

    @hookimpl
    def polyplane_audit(self, program: Program) -> list[Drift]:
        return []

    @hookimpl
    def polyplane_counters(self) -> list[RuleCount]:
        return []

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        return Applied(operations=0)


class Spent(NamedTuple):
    """What following one event took."""

    seconds: float
    operations: int
    addresses: int
    recomputations: Mapping[str, int]


class Node:
    """The node under test: a loop with a clock of its own."""

    def __init__(self) -> None:
        self.backend = NoDataplane()
        self.compiler = Compiler(node=NODE)
        self.store = Store(dialects())
        self.loop = Loop(
            store=self.store,
            compiler=self.compiler,
            dataplane=Dataplane("none", self.backend),
            observers=load_observers(OBSERVERS, {}),
            # What is done every so often is no event's: the clock moves on so far with each that it would be done with every other.
            timing=Timing(audit_interval=0, count_interval=math.inf),
        )
        self._clock = 0.0

    def start(self, events: Iterator[SourceEvent]) -> float:
        """Follow everything there is; return the CPU seconds it took."""
        spent = 0.0
        while lot := list(islice(events, _LOT)):
            self._clock += 0.001
            began = time.process_time()
            for event in lot:
                self.loop.offer(event, self._clock)
            self.loop.step(self._clock)
            keep_what_there_is()
            spent += time.process_time() - began
        assert self.loop.in_force, "the loop has not settled"
        return spent

    def follow(self, event: SourceEvent) -> Spent:
        """Follow one event from its arrival to the delta."""
        self._clock += 10
        self.backend.delta = None
        before = dict(self.compiler.recomputations)
        began = time.process_time()
        self.loop.offer(event, self._clock)
        self.loop.step(self._clock + 1)
        seconds = time.process_time() - began
        assert self.loop.in_force, "the loop has not settled"
        # typed by the attribute, which the loop has set meanwhile
        delta: Delta | None = self.backend.delta
        operations = delta.operations if delta is not None else ()
        addresses = sum(len(each.added) + len(each.removed) for each in operations if isinstance(each, ChangeMembers))
        after = self.compiler.recomputations
        worked = {what: number - before.get(what, 0) for what, number in after.items() if number != before.get(what, 0)}
        return Spent(seconds, len(operations), addresses, worked)


def events(cluster: SyntheticCluster, program: Program, chance: random.Random) -> Iterator[tuple[str, SourceEvent]]:
    """Yield one round of events of every kind, each undone by a later one of the round."""
    shape = cluster.shape
    peers = [each.members for each in program.sets.values()]

    def place(number: int) -> str:
        addresses = [Cidr.parse(entry["ip"]) for entry in cluster.pod(number)["status"]["podIPs"]]
        if cluster.is_local(number):
            return "here"
        return "a peer" if any(address in members for members in peers for address in addresses) else "nobody's peer"

    tries = [
        *(chance.randrange(shape.pods) for _ in range(500)),
        *filter(cluster.is_local, range(0, shape.pods, shape.pods // shape.local)),
    ]
    chance.shuffle(tries)
    chosen = {place(number): number for number in tries}
    for where, number in sorted(chosen.items()):
        old = cluster.pod(number)
        yield f"pod deleted, {where}", RemoveObject(key_of(old))
        yield f"pod added, {where}", put(old)
        other = chance.choice([app for app in APPS if app != old["metadata"]["labels"]["app"]])
        yield f"pod relabelled, {where}", put(cluster.pod(number, app=other))
        yield f"pod relabelled, {where}", put(old)
        yield f"pod's address, {where}", put(cluster.pod(number, address=shape.pods + 20_000))
        yield f"pod's address, {where}", put(old)
    crowd = cluster.home(chance.randrange(shape.pods))
    yield "namespace relabelled", put(cluster.namespace(crowd, team="team-none"))
    yield "namespace relabelled", put(cluster.namespace(crowd))
    here = chosen["here"]
    for where, space in (("elsewhere", _empty_namespace(cluster, chance)), ("here", cluster.home(here))):
        number = shape.policies + chance.randrange(10_000)
        while where == "here" and not _selects(cluster.policy(number, namespace=space), cluster.pod(here)):
            number += 1
        yield f"policy added, {where}", put(cluster.policy(number, namespace=space))
        yield f"policy changed, {where}", put(cluster.policy(number, namespace=space, port=7000))
        yield f"policy deleted, {where}", RemoveObject(key_of(cluster.policy(number, namespace=space)))


def _empty_namespace(cluster: SyntheticCluster, chance: random.Random) -> int:
    """Return a namespace without a pod on this node."""
    shape = cluster.shape
    taken = {cluster.home(number) for number in range(0, shape.pods, shape.pods // shape.local) if cluster.is_local(number)}
    return chance.choice([number for number in range(shape.namespaces) if number not in taken])


def _selects(policy: Raw, pod: Raw) -> bool:
    """Whether a policy of the synthetic cluster selects a pod of its namespace."""
    wanted = policy["spec"]["podSelector"].get("matchLabels", {})
    return bool(wanted.items() <= pod["metadata"]["labels"].items())


def memory_of(process: int | str, field: str) -> float:
    """Return a size of a process in MiB, by its name in ``/proc/<process>/status``."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def run(shape: Shape, rounds: int) -> dict[str, Any]:
    """Measure one cold start, then rounds of events."""
    before = memory_of("self", "VmRSS")
    cluster, node = SyntheticCluster(shape), Node()
    cold = node.start(cluster.events())
    peak = memory_of("self", "VmHWM")
    program = node.compiler.program
    facts = {
        "endpoints": len(program.endpoints),
        "policies": len(program.policies),
        "rules": sum(len(policy.rules) for policy in program.policies.values()),
        "sets": len(program.sets),
        "set members": sum(len(each.members) for each in program.sets.values()),
    }
    assert not node.store.problems, next(iter(node.store.problems.values()))
    assert facts["endpoints"] == shape.local
    chance = random.Random(shape.seed)  # noqa: S311 (no secret)
    spent: dict[str, list[Spent]] = {}
    for _ in range(rounds):
        for kind, event in events(cluster, program, chance):
            spent.setdefault(kind, []).append(node.follow(event))
    assert node.compiler.program.same_content(program), "the events of a round do not undo each other"
    return {
        "cold": cold,
        "before": before,
        "peak": peak,
        "facts": facts,
        "events": {kind: [each._asdict() for each in every] for kind, every in spent.items()},
    }


def main() -> None:
    """Read a shape and a number of rounds as JSON from the command line, print what was measured."""
    logs.configure(LogLevel.ERROR, LogFormat.TEXT)
    given: Raw = json.loads(sys.argv[1])
    rounds = given.pop("rounds")
    sys.stdout.write(json.dumps(run(Shape(**given), rounds)) + "\n")


if __name__ == "__main__":
    main()
