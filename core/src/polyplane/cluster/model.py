"""What the cluster says, parsed once: frozen values, no Kubernetes library beyond this point.

Two families live here. *Events* are what sources emit: raw decoded objects with where they came from. *Objects* are what the
rest of polyplane works with: pods, namespaces, nodes, and policies in a form that no single policy API owns, into which each
dialect translates its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from polyplane.cluster.lines import Lines
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Action, Direction, IcmpType, TierEnd

Labels = Mapping[str, str]


class ObjectKey(NamedTuple):
    """Identity of an object of the cluster. ``namespace`` is empty for cluster-scoped objects."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


# --- events: what a source emits -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PutObject:
    """An object exists with this content.

    ``raw`` is the decoded object, ``where`` names its place (``web.yaml, document 2, line 14``); ``lines`` are those of its parts,
    where ``where`` ends in a line.
    """

    key: ObjectKey
    raw: Mapping[str, Any]
    where: str = ""
    lines: Lines | None = field(default=None, compare=False, repr=False)

    def place_of(self, path: str) -> str:
        """Return the place of a field of the object (``spec.ingress[0].from``), as near as it is known."""
        if self.lines is None:
            return self.where
        return f"{self.where.rpartition('line ')[0]}line {self.lines.of(path)}"


@dataclass(frozen=True, slots=True)
class RemoveObject:
    """An object is gone."""

    key: ObjectKey


@dataclass(frozen=True, slots=True)
class InSync:
    """Everything the source could read at its start has been emitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProblem:
    """Something the source could not read. ``where`` is its place; None as ``problem`` says that an earlier problem there is over.

    ``stale``: objects that were read there before stay in force until it is repaired.
    """

    where: str
    problem: str | None
    stale: bool = False


SourceEvent = PutObject | RemoveObject | InSync | SourceProblem


# --- selectors -------------------------------------------------------------------------------------------------------


class Operator(StrEnum):
    """Operators of a label selector requirement (meta/v1 LabelSelectorOperator)."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One condition on a label. NOT_IN and DOES_NOT_EXIST hold for objects that lack the key."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Labels) -> bool:
        """Whether the labels fulfil the condition."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None

    def __str__(self) -> str:
        match self.operator:
            case Operator.IN | Operator.NOT_IN:
                word = "in" if self.operator is Operator.IN else "notin"
                return f"{self.key} {word} ({','.join(self.values)})"
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold, sorted and distinct; ``values`` of each sorted. None at all: matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        for requirement in self.requirements:  # noqa: SIM110 (a generator costs more than the one requirement most selectors have)
            if not requirement.holds(labels):
                return False
        return True

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements) or "*"


EVERYTHING = LabelSelector()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSelector:
    """Pods by namespace and label. ``namespace`` set: only there; otherwise ``namespaces`` selects by namespace labels.

    Pods of the host network are never selected.
    """

    namespace: str | None = None
    namespaces: LabelSelector = EVERYTHING
    pods: LabelSelector = EVERYTHING

    def __post_init__(self) -> None:
        if self.namespace is not None and self.namespaces.requirements:
            raise ValueError(f"a selector in namespace {self.namespace} cannot ask for the labels of namespaces")

    def __str__(self) -> str:
        where = f"namespace={self.namespace}" if self.namespace is not None else f"namespaces({self.namespaces})"
        return f"pods({self.pods}) in {where}"


# --- peers, ports, rules: no single API's vocabulary -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PodPeer:
    """The addresses of the selected pods."""

    selector: PodSelector


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """Addresses inside ``cidr`` but in none of ``excepts``."""

    cidr: Cidr
    excepts: tuple[Cidr, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePeer:
    """The addresses of the nodes selected by label."""

    nodes: LabelSelector


Peer = PodPeer | CidrPeer | NodePeer


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMatch:
    """A protocol (number) and, unless None, ports: ``first..last`` inclusive, or a container port's ``name`` at the destination.

    A name with ``protocol`` None takes whatever protocol the container port declares.
    """

    protocol: int | None
    first: int | None = None
    last: int | None = None
    name: str | None = None
    icmp: IcmpType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One rule of a policy object. ``peers`` None: any; an empty tuple: nobody. ``ports`` likewise."""

    action: Action
    peers: tuple[Peer, ...] | None = None
    ports: tuple[PortMatch, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSpec:
    """A tier as its dialect defines it. Tiers are evaluated by ascending ``position``.

    ``end``: what happens at the end of the tier to an endpoint that a policy of the tier isolates in that direction; without
    such a policy the next tier decides. ``exempts_self``: see `polyplane.ir.program.Tier`.
    """

    name: str
    position: int
    end: TierEnd = TierEnd.NEXT
    exempts_self: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPolicy:
    """One policy object, translated but not yet resolved against pods.

    ``order`` sorts inside the tier, before namespace and name; where it is given, two policies of a tier with an equal one are
    reported. ``rules[d]`` is absent where the object says nothing about the direction; a direction in ``isolates`` ends in deny
    for the subject's pods even without rules. ``unsupported``: what the object asks for that nobody can do; its ``rules`` fail
    closed there already.
    """

    key: ObjectKey
    tier: TierSpec
    order: tuple[int, ...] = ()
    subject: PodSelector
    rules: Mapping[Direction, tuple[PolicyRule, ...]]
    isolates: frozenset[Direction] = frozenset()
    warnings: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One policy API. ``parse`` gets the raw object, applies the API's defaults and validation, and translates it.

    ``parse`` raises `polyplane.errors.InvalidObject` for whatever the API server would reject, and never anything else.
    ``namespaced`` tells whether objects of this kind live in a namespace.
    """

    api_version: str
    kind: str
    namespaced: bool
    tiers: tuple[TierSpec, ...]
    parse: Callable[[Mapping[str, Any]], ClusterPolicy]


# --- pods, namespaces, nodes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A declared port of a container: ``protocol`` is the IP protocol number."""

    name: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as far as policy cares. ``addresses`` are host prefixes.

    A finished pod (phase Succeeded or Failed) is kept without addresses, since they may belong to another pod already.
    ``interface`` is the host-side interface, from the annotation `polyplane.dev/host-interface` or found on the node.
    """

    namespace: str
    name: str
    labels: Labels
    node: str
    addresses: tuple[Cidr, ...]
    host_network: bool = False
    ports: tuple[ContainerPort, ...] = ()
    interface: str | None = None

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace and its labels, `kubernetes.io/metadata.name` always among them."""

    name: str
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the cluster, its addresses as host prefixes, and the prefixes from which its pods get theirs."""

    name: str
    labels: Labels = field(default_factory=dict)
    addresses: tuple[Cidr, ...] = ()
    pod_prefixes: tuple[Cidr, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One object of the store before and after an event; None: was not or is not there. Both are of the same type."""

    old: Pod | Namespace | Node | ClusterPolicy | None
    new: Pod | Namespace | Node | ClusterPolicy | None
