"""`ControlPlane`: polyplane from the store to the program, for one or several nodes, fed with a world's writes.

What a verdict of the whole cluster is: a connection passes when every node it touches lets it pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from polyplane.cluster.model import Change, InSync, ObjectKey, PutObject, RemoveObject, SourceEvent
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Evaluation, Packet, Verdict, evaluate
from polyplane.ir.features import ALL_FEATURES, Capabilities
from polyplane.ir.program import ICMP, ICMPV6, SCTP, TCP, UDP, IcmpType, Options, Program
from polyplane.plugins import dialects
from polyplane_conformance.cast import NODE, REMOTE_NODE
from polyplane_conformance.expectation import Pair, Service
from polyplane_conformance.world import API_VERSIONS, Raw, World, Write

PROTOCOLS: Final[Mapping[str, int]] = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_ECHO: Final[Mapping[int, tuple[int, IcmpType]]] = {4: (ICMP, IcmpType(8, 0)), 6: (ICMPV6, IcmpType(128, 0))}


def event_of(write: Write) -> SourceEvent:
    """Return what a source would emit for the write."""
    kind, namespace, name = write.key
    key = ObjectKey(API_VERSIONS.get(kind, "v1"), kind, namespace, name)
    return RemoveObject(key) if write.raw is None else PutObject(key=key, raw=write.raw, where="the scenario")


class ControlPlane:
    """One store and a compiler for each node; a state machine without I/O."""

    def __init__(
        self,
        nodes: Iterable[str] = (NODE, REMOTE_NODE),
        *,
        capabilities: Capabilities = ALL_FEATURES,
        options: Options | None = None,
        node_addresses: Mapping[str, frozenset[Cidr]] | None = None,
    ) -> None:
        self.store = Store(dialects())
        self.compilers = {
            node: Compiler(
                node=node,
                capabilities=capabilities,
                options=options or Options(),
                node_addresses=(node_addresses or {}).get(node, frozenset()),
            )
            for node in nodes
        }
        self.store.apply(InSync())

    @property
    def programs(self) -> dict[str, Program]:
        """Each node's program."""
        return {node: compiler.program for node, compiler in self.compilers.items()}

    def feed(self, writes: Iterable[Write]) -> dict[str, Program]:
        """Take in a batch of writes and return the programs."""
        return self.follow(event_of(write) for write in writes)

    def follow(self, events: Iterable[SourceEvent]) -> dict[str, Program]:
        """Take in a batch of events and return the programs."""
        changes: list[Change] = [change for event in events for change in self.store.apply(event)]
        for compiler in self.compilers.values():
            compiler.update(changes)
        return self.programs


def writes_of(objects: Iterable[Raw]) -> list[Write]:
    """Return the writes that bring these objects about."""
    return [Write(key=(raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"]), raw=raw) for raw in objects]


def packet_of(source: str, destination: str, service: Service, *, from_node: bool = False) -> Packet:
    """Return the packet that opens a connection to a service."""
    addresses = Cidr.parse(source), Cidr.parse(destination)
    if service.protocol == "ICMP":
        protocol, icmp = _ECHO[addresses[0].family]
        return Packet(source=addresses[0], destination=addresses[1], protocol=protocol, icmp=icmp, from_node=from_node)
    return Packet(
        source=addresses[0],
        destination=addresses[1],
        protocol=PROTOCOLS[service.protocol],
        source_port=40000,
        port=service.port or 0,
        from_node=from_node,
    )


def decide(world: World, programs: Mapping[str, Program], pair: Pair, service: Service, family: int) -> list[Evaluation]:
    """Return what each node on the way says: the source's own, then the destination's if it is another."""
    addresses = world.addresses(pair[0])[family], world.addresses(pair[1])[family]
    nodes = dict.fromkeys(node for node in (_node_at(world, address) for address in addresses) if node is not None)
    return [
        evaluate(programs[node], packet_of(*addresses, service, from_node=addresses[0] in _node_addresses(world, node)))
        for node in nodes
        if node in programs
    ]


def allowed(evaluations: Iterable[Evaluation]) -> bool:
    """Whether a connection passes everywhere."""
    return all(evaluation.verdict is Verdict.ALLOW for evaluation in evaluations)


def trail_of(evaluations: Iterable[Evaluation]) -> tuple[str, ...]:
    """Return how the nodes came to their verdicts, one line for each station."""
    return tuple(f"{step.where}: {step.subject}: {step.outcome}" for evaluation in evaluations for step in evaluation.trail)


def _node_addresses(world: World, node: str) -> frozenset[str]:
    return frozenset(entry["address"] for entry in world.objects["Node", "", node]["status"]["addresses"])


def _node_at(world: World, address: str) -> str | None:
    """The node that an address is on: its own, or that of a pod which runs."""
    return world.homes().get(address)
