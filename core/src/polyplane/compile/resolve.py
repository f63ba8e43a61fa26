"""`PeerSets`: peers of policies to address sets, kept up to date pod by pod.

Equal peers share one set, which exists as long as some policy asks for it. An address is counted by the pods that have it,
so that the set is right while an address passes from one pod to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from polyplane.cluster.model import LabelSelector, Node, Pod, PodSelector
from polyplane.compile.selectors import PodIndex, SelectorIndex, selects
from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane.ir.program import AddressSet, SetId, digest


@dataclass(frozen=True, slots=True)
class Pods:
    """Wanted: the addresses of the selected pods."""

    selector: PodSelector


@dataclass(frozen=True, slots=True)
class NamedPorts:
    """Wanted: the selected pods that declare a container port of this name, apart for each protocol and number.

    ``protocol`` None takes the port whatever its protocol.
    """

    selector: PodSelector
    name: str
    protocol: int | None


@dataclass(frozen=True, slots=True)
class Nodes:
    """Wanted: the addresses of the selected nodes."""

    selector: LabelSelector


@dataclass(frozen=True, slots=True)
class Cidrs:
    """Wanted: these prefixes, sorted."""

    cidrs: tuple[Cidr, ...]


Wanted = Pods | NamedPorts | Nodes | Cidrs

#: Which part of what is wanted: ``(protocol, number)`` of a named port, None for everything else.
Part = tuple[int, int] | None


@dataclass(slots=True)
class _Counted:
    """A set under construction: how many owners gave each member."""

    id: SetId
    label: str
    counts: Counter[Cidr] = field(default_factory=Counter)
    published: AddressSet | None = None
    _added: set[Cidr] = field(default_factory=set)
    _removed: set[Cidr] = field(default_factory=set)

    def change(self, members: Iterable[Cidr], by: int) -> None:
        for member in members:
            before = self.counts[member]
            self.counts[member] = after = before + by
            if not before:
                self._removed.discard(member)
                self._added.add(member)
            elif not after:
                del self.counts[member]
                self._added.discard(member)
                self._removed.add(member)

    def publish(self) -> AddressSet:
        """Return the set as it is now, sharing storage with what was published before."""
        if self.published is None:
            self.published = AddressSet(id=self.id, label=self.label, members=Members(self.counts))
        elif self._added or self._removed:
            members = self.published.members.changed(added=self._added, removed=self._removed)
            if members != self.published.members:
                self.published = AddressSet(id=self.id, label=self.label, members=members)
        self._added.clear()
        self._removed.clear()
        return self.published


class PeerSets:
    """The address sets that active policies ask for.

    ``dirty`` collects the ids of sets whose members may have changed, ``moved`` the `NamedPorts` whose numbers have; whoever
    reads them clears them.
    """

    def __init__(self, pods: PodIndex, recomputations: Counter[str]) -> None:
        self._pods: Final = pods
        self._nodes: Final[dict[str, Node]] = {}
        self._recomputations: Final = recomputations
        self._users: Final[Counter[Wanted]] = Counter()
        self._sets: Final[dict[Wanted, dict[Part, _Counted]]] = {}
        self._index: Final[SelectorIndex[Pods | NamedPorts]] = SelectorIndex()
        self._by_id: Final[dict[SetId, _Counted]] = {}
        self.dirty: Final[set[SetId]] = set()
        self.moved: Final[set[NamedPorts]] = set()

    def acquire(self, wanted: Wanted) -> None:
        """Ask for a set; the first to ask resolves it."""
        self._users[wanted] += 1
        if self._users[wanted] > 1:
            return
        self._recomputations["peers resolved"] += 1
        self._sets[wanted] = {}
        match wanted:
            case Pods():
                self._index.add(wanted, wanted.selector)
                # Nobody has seen the set yet, so there are no changes to note: counting alone happens in C.
                owners = self._pods.selected(wanted.selector)
                self._part(wanted, None).counts.update(chain.from_iterable(pod.addresses for pod in owners))
            case NamedPorts():
                self._index.add(wanted, wanted.selector)
                for pod in self._pods.selected(wanted.selector):
                    self._contribute(wanted, pod, 1)
            case Nodes():
                self._part(wanted, None)
                for node in self._nodes.values():
                    self._contribute_node(wanted, node, 1)
            case Cidrs():
                self._part(wanted, None).change(wanted.cidrs, 1)

    def release(self, wanted: Wanted) -> None:
        """Give a set back; the last to do so removes it."""
        self._users[wanted] -= 1
        if self._users[wanted]:
            return
        del self._users[wanted]
        if isinstance(wanted, Pods | NamedPorts):
            self._index.remove(wanted, wanted.selector)
        for counted in self._sets.pop(wanted).values():
            del self._by_id[counted.id]
            self.dirty.add(counted.id)
        if isinstance(wanted, NamedPorts):
            self.moved.discard(wanted)

    def parts(self, wanted: Wanted) -> Iterator[tuple[Part, SetId]]:
        """Yield the sets of something asked for: one, or one for each protocol and number of a named port, sorted."""
        for part in sorted(self._sets[wanted], key=lambda part: part or (0, 0)):
            yield part, self._sets[wanted][part].id

    def publish(self, set_id: SetId) -> AddressSet | None:
        """Return the set's current value, None if nobody asks for it any more."""
        counted = self._by_id.get(set_id)
        return None if counted is None else counted.publish()

    # --- changes of the cluster ---

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow a pod; the index already knows the new one."""
        for pod, by in ((new, 1), (old, -1)):
            if pod is None or pod.host_network:
                continue
            labels = self._pods.namespace_labels(pod.namespace)
            for wanted, selector in list(self._index.candidates(pod)):
                self._recomputations["selectors tried"] += 1
                if selects(selector, pod, labels):
                    self._contribute(wanted, pod, by)

    def namespace_changed(self, name: str, old: dict[str, str], new: dict[str, str]) -> None:
        """Follow the labels of a namespace."""
        for wanted, selector in self._index.by_namespace_labels(name):
            self._recomputations["selectors tried"] += 1
            was, now = selector.namespaces.matches(old), selector.namespaces.matches(new)
            if was is now:
                continue
            for pod in self._pods.in_namespace(name):
                if not pod.host_network and selector.pods.matches(pod.labels):
                    self._contribute(wanted, pod, 1 if now else -1)

    def node_changed(self, old: Node | None, new: Node | None) -> None:
        """Follow a node."""
        for wanted in [wanted for wanted in self._sets if isinstance(wanted, Nodes)]:
            for node, by in ((new, 1), (old, -1)):
                if node is not None:
                    self._contribute_node(wanted, node, by)
        if old is not None:
            del self._nodes[old.name]
        if new is not None:
            self._nodes[new.name] = new

    # --- internals ---

    def _contribute(self, wanted: Pods | NamedPorts, pod: Pod, by: int) -> None:
        if isinstance(wanted, Pods):
            self._change(wanted, None, pod.addresses, by)
            return
        numbers = {
            (port.protocol, port.port) for port in pod.ports if port.name == wanted.name and wanted.protocol in (None, port.protocol)
        }
        for part in numbers if pod.addresses else ():
            self._change(wanted, part, pod.addresses, by)

    def _contribute_node(self, wanted: Nodes, node: Node, by: int) -> None:
        if wanted.selector.matches(node.labels):
            self._change(wanted, None, node.addresses, by)

    def _change(self, wanted: Wanted, part: Part, members: Iterable[Cidr], by: int) -> None:
        counted = self._part(wanted, part)
        counted.change(members, by)
        self.dirty.add(counted.id)
        if part is not None and isinstance(wanted, NamedPorts) and not counted.counts:
            del self._sets[wanted][part], self._by_id[counted.id]
            self.moved.add(wanted)

    def _part(self, wanted: Wanted, part: Part) -> _Counted:
        parts = self._sets[wanted]
        if part not in parts:
            set_id, label = _identity(wanted, part)
            parts[part] = self._by_id[set_id] = _Counted(set_id, label)
            self.dirty.add(set_id)
            if isinstance(wanted, NamedPorts):
                self.moved.add(wanted)
        return parts[part]


def _identity(wanted: Wanted, part: Part) -> tuple[SetId, str]:
    """Return the content-derived id of a set and what to call it for people."""
    match wanted:
        case Pods(selector):
            label = str(selector)
        case NamedPorts(selector, name, asked):
            protocol, number = part or (0, 0)
            label = f"{selector} with {'any' if asked is None else asked}-port {name} = {protocol}/{number}"
        case Nodes(selector):
            label = f"nodes({selector})"
        case Cidrs(cidrs):
            label = ", ".join(map(str, cidrs))
    return SetId(digest(type(wanted).__name__, label)), label
