"""``polyplane demo``: a directory of manifests becomes a sandbox; who reaches whom before and after, and what decided it.

Each node that the pods name is a namespace, and the backend enforces on each what polyplane compiles for it, as in a cluster.
Then every answer of the packets is compared with what `polyplane.ir.evaluate` says about the same packet.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyplane.agent import compile_store
from polyplane.cluster.model import InSync, PutObject, SourceEvent
from polyplane.cluster.store import Store
from polyplane.errors import ConfigError, PolyplaneError
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Decision, Packet, Verdict, evaluate
from polyplane.ir.program import EMPTY, IcmpType, Isolation, Program
from polyplane.plugins import Dataplane, dialects, load_backend, load_source
from polyplane.reconcile.diff import diff
from polyplane_conformance.casting import Casting, cast_pods
from polyplane_conformance.gaps import load_gaps
from polyplane_conformance.probe.model import ICMP, ICMPV6, Outcome, Result
from polyplane_conformance.reachability import Cell, Reachability, render
from polyplane_conformance.sandbox import Sandbox

#: Seconds that the manifests may take to be read.
_READ_TIMEOUT = 30.0
#: What evaluate is told about an echo request, by protocol.
_ECHO = {ICMP: IcmpType(8, 0), ICMPV6: IcmpType(128, 0)}
_SOURCE_PORT = 40000


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What evaluate says about a cell: the verdict, and on which node and by what it was denied."""

    allowed: bool
    node: str = ""
    by: str = ""


def run_demo(*, backend: str, manifests: Path, console: Console) -> int:
    """Play the demo; return 0 when all packets did what evaluate says, 1 otherwise.

    :param backend: name of an installed backend that works on packets of a sandbox: takes what `Sandbox.backend_options` gives
    :param manifests: directory with pods, namespaces and policies; pods without addresses are given some
    :raises PolyplaneError: no such directory, no pods, no such backend, no root
    """
    store, casting = _read(manifests)
    for problem in store.problems.values():
        console.print(Text(f"{problem.severity}: {problem}", style="yellow"))
    with Sandbox.build(casting.topology, load_gaps(backend).wiring) as sandbox:
        topology = sandbox.topology
        console.print(
            f"{len(topology.pods)} pods on {', '.join(node.name for node in topology.nodes)} and a host outside, "
            f"built from network namespaces in {sandbox.built_in:.2f} s"
        )
        sources = [*(pod.id for pod in topology.pods), *(host.name for host in topology.hosts)]
        before = sandbox.matrix(sources=sources)
        console.print(f"\nbefore: {before} ({len(store.policies)} policies in the manifests, none in force)")
        if before.select(Outcome.BROKEN):
            _print_broken(console, before)
            return 1
        programs = {
            node.name: _enforce(console, backend, sandbox, store, node.name)
            for node in topology.nodes
            if any(pod.node == node.name for pod in store.pods.values())
        }
        began = time.monotonic()
        after = sandbox.matrix(sources=sources)
        console.print(f"after:  {after} ({len(after.cells)} connections tried in {time.monotonic() - began:.2f} s)\n")
        explained = {cell: explain(sandbox, programs, cell) for cell in after.cells}
    expected = {cell: explanation.allowed for cell, explanation in explained.items()}
    console.print(
        "[green]✓[/] passes   [bold red]✓→✗[/] passed before, now does not   [reverse]reverse[/] disagrees with evaluate   · not served\n"
    )
    console.print(render(after, before=before, expected=expected))
    _print_decisions(console, after, explained)
    return _print_agreement(console, after, expected)


def _read(directory: Path) -> tuple[Store, Casting]:
    """Read the manifests, give the pods what they lack, and return the store of the result.

    The source's own events are completed rather than the files, so that whatever the source understands works here, too.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory")
    events: queue.SimpleQueue[SourceEvent] = queue.SimpleQueue()
    found: list[SourceEvent] = []
    with load_source("manifests", {"directory": str(directory)}) as source:
        source.start(events.put)
        deadline = time.monotonic() + _READ_TIMEOUT
        while not found or not isinstance(found[-1], InSync):
            try:
                found.append(events.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                raise PolyplaneError(f"{directory}: reading it takes longer than {_READ_TIMEOUT:.0f} s") from None
    casting = cast_pods([event for event in found if isinstance(event, PutObject)])
    store = Store(dialects())
    for event in [*casting.events, *(event for event in found if not isinstance(event, PutObject))]:
        store.apply(event)
    casting.settle(store.pods.values(), store.nodes.values())
    return store, casting


def _enforce(console: Console, backend: str, sandbox: Sandbox, store: Store, node: str) -> Program:
    dataplane = _load(backend, sandbox.backend_options(node))
    capabilities = dataplane.require_available()
    own = frozenset(Cidr.parse(address) for address in sandbox.topology.addresses_of(node))
    program = compile_store(store, node, capabilities=capabilities, node_addresses=own)
    began = time.monotonic()
    applied = dataplane.apply(diff(EMPTY, program))
    took = (time.monotonic() - began) * 1000
    console.print(
        f"{node}: {backend} brought {len(program.policies)} policies for {len(program.endpoints)} pods into force, "
        f"{applied.operations} operations in {took:.0f} ms"
    )
    return program


def _load(backend: str, options: Mapping[str, object]) -> Dataplane:
    try:
        return load_backend(backend, options)
    except ConfigError as error:
        raise PolyplaneError(f"backend {backend} does not work on packets of a sandbox: {error}") from error


def explain(sandbox: Sandbox, programs: Mapping[str, Program], cell: Cell) -> Explanation:
    """Ask evaluate about a cell, on the sender's node and on the receiver's: both must allow."""
    topology, traffic = sandbox.topology, cell.traffic
    source, destination = (topology.address_of(name, traffic.family) for name in (cell.source, cell.destination))
    if source is None or destination is None:
        raise PolyplaneError(f"{cell}: no address of this family")
    if source == destination:
        return Explanation(allowed=True)  # never leaves the pod
    homes = {pod.id: topology.node_of(pod).name for pod in topology.pods} | {node.name: node.name for node in topology.nodes}
    for node in dict.fromkeys(homes[name] for name in (cell.source, cell.destination) if name in homes):
        packet = Packet(
            source=Cidr.parse(source),
            destination=Cidr.parse(destination),
            protocol=traffic.protocol,
            source_port=_SOURCE_PORT if traffic.port else 0,
            port=traffic.port,
            icmp=_ECHO.get(traffic.protocol),
            from_node=source in topology.addresses_of(node),
        )
        evaluation = evaluate(programs.get(node, EMPTY), packet)
        if evaluation.verdict is Verdict.DENY:
            direction = "egress" if evaluation.decision is evaluation.egress else "ingress"
            return Explanation(allowed=False, node=node, by=f"{direction}: {_decider(evaluation.decision)}")
    return Explanation(allowed=True)


def _decider(decision: Decision) -> str:
    by = decision.decided_by
    if not isinstance(by, Isolation):
        return str(by.origin if by is not None else "no rule")
    policies: dict[str, list[str]] = {}
    for origin in by.origins:
        policies.setdefault(origin.kind, []).append(f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name)
    return "isolated by " + ", ".join(f"{kind} {', '.join(names)}" for kind, names in policies.items())


def _print_decisions(console: Console, after: Reachability, explained: Mapping[Cell, Explanation]) -> None:
    """List what decided each denied cell; kinds of traffic with the same answer share a line."""
    lines: dict[tuple[str, str, Explanation], list[str]] = {}
    for cell, explanation in explained.items():
        if not after.cells[cell].allowed:
            kinds = lines.setdefault((cell.source, cell.destination, explanation), [])
            if cell.traffic.name not in kinds:
                kinds.append(cell.traffic.name)
    table = Table(
        "from", "to", "denied", "on", "by", title="What decided", title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for (source, destination, explanation), kinds in sorted(lines.items(), key=lambda line: line[0][:2]):
        table.add_row(source, destination, ", ".join(kinds), explanation.node, explanation.by or "nothing: evaluate would let it pass")
    console.print(table)


def _print_broken(console: Console, matrix: Reachability) -> None:
    for cell, result in matrix.select(Outcome.BROKEN).items():
        console.print(Text(f"{cell}: {_said(result)}", style="magenta"))
    console.print("[bold red]the sandbox itself does not work; no policy was tried[/]")


def _print_agreement(console: Console, after: Reachability, expected: Mapping[Cell, bool]) -> int:
    differences = after.differences(expected)
    console.print()
    for difference in differences:
        console.print(Text(str(difference), style="red"))
    if differences:
        console.print(f"[bold red]packets disagree with evaluate on {len(differences)} of {len(expected)} connections[/]")
        return 1
    console.print(f"[bold green]packets and evaluate agree on all {len(expected)} connections[/]")
    return 0


def _said(result: Result) -> str:
    return f"{result.outcome}: {result.detail}" if result.detail else result.outcome.value
