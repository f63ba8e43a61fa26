"""Indexes that answer the two questions of selector evaluation without trying everything against everything.

`SelectorIndex`: here is a pod, which selectors may match it? `PodIndex`: here is a selector, which pods match it?
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

from polyplane.cluster.model import Labels, LabelSelector, Operator, Pod, PodSelector

T = TypeVar("T", bound=Hashable)

#: Set by the control plane on every namespace (Kubernetes 1.22).
NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"


def selects(selector: PodSelector, pod: Pod, namespace_labels: Labels) -> bool:
    """Whether the selector means this pod; never a pod of the host network."""
    if pod.host_network:
        return False
    if selector.namespace is not None:
        if selector.namespace != pod.namespace:
            return False
    elif not selector.namespaces.matches(namespace_labels):
        return False
    return selector.pods.matches(pod.labels)


def _anchor(selector: LabelSelector) -> tuple[str, tuple[str, ...]] | None:
    """A label and the values one of which an object must have to match; the requirement with the fewest values."""
    anchors = [requirement for requirement in selector.requirements if requirement.operator is Operator.IN]
    if not anchors:
        return None
    best = min(anchors, key=lambda requirement: len(requirement.values))
    return best.key, best.values


class SelectorIndex(Generic[T]):
    """Owners of pod selectors, found by the pods that may match.

    A selector sits in the bucket of its namespace and of one pod label it requires, as far as it has these; a pod looks only
    into its own namespace's bucket and the one for all namespaces, and there only under its own labels.
    """

    def __init__(self) -> None:
        self._buckets: Final[dict[str | None, dict[tuple[str, str] | None, dict[T, PodSelector]]]] = {}

    def add(self, owner: T, selector: PodSelector) -> None:
        """Register an owner's selector."""
        for scope, label in _places(selector):
            self._buckets.setdefault(scope, {}).setdefault(label, {})[owner] = selector

    def remove(self, owner: T, selector: PodSelector) -> None:
        """Forget an owner's selector, given the selector it was added with."""
        for scope, label in _places(selector):
            del self._buckets[scope][label][owner]
            if not self._buckets[scope][label]:
                del self._buckets[scope][label]
                if not self._buckets[scope]:
                    del self._buckets[scope]

    def candidates(self, pod: Pod) -> Iterator[tuple[T, PodSelector]]:
        """Yield every owner whose selector may match the pod; each must still be checked with `selects`."""
        for scope in (pod.namespace, None):
            bucket = self._buckets.get(scope)
            if bucket is None:
                continue
            yield from bucket.get(None, {}).items()
            for label in pod.labels.items():
                yield from bucket.get(label, {}).items()

    def by_namespace_labels(self, namespace: str) -> list[tuple[T, PodSelector]]:
        """Return every owner whose selector asks for labels of namespaces and may mean this one."""
        found: dict[T, PodSelector] = {}
        for scope in (namespace, None):
            for owners in self._buckets.get(scope, {}).values():
                found.update((owner, selector) for owner, selector in owners.items() if selector.namespaces.requirements)
        return list(found.items())


def _places(selector: PodSelector) -> Iterator[tuple[str | None, tuple[str, str] | None]]:
    scope = selector.namespace
    if scope is None:
        anchor = _anchor(selector.namespaces)
        if anchor is not None and anchor[0] == NAMESPACE_NAME_LABEL:
            for name in anchor[1]:
                yield from ((name, label) for label in _labels(selector))
            return
    yield from ((scope, label) for label in _labels(selector))


def _labels(selector: PodSelector) -> Iterator[tuple[str, str] | None]:
    anchor = _anchor(selector.pods)
    if anchor is None:
        yield None
    else:
        yield from ((anchor[0], value) for value in anchor[1])


class PodIndex:
    """All pods, found by namespace and by label."""

    def __init__(self) -> None:
        self.pods: Final[dict[str, Pod]] = {}
        #: Labels of the namespaces that exist or have pods.
        self.namespaces: Final[dict[str, Labels]] = {}
        self._by_namespace: Final[dict[str, set[str]]] = {}
        self._by_label: Final[dict[tuple[str, str], set[str]]] = {}

    def put(self, pod: Pod) -> None:
        """Add a pod that is not there."""
        self.pods[pod.id] = pod
        self._by_namespace.setdefault(pod.namespace, set()).add(pod.id)
        for label in pod.labels.items():
            self._by_label.setdefault(label, set()).add(pod.id)

    def remove(self, pod: Pod) -> None:
        """Remove a pod that is there."""
        del self.pods[pod.id]
        _discard(self._by_namespace, pod.namespace, pod.id)
        for label in pod.labels.items():
            _discard(self._by_label, label, pod.id)

    def namespace_labels(self, namespace: str) -> Labels:
        """Labels of a namespace; one without an object has only its name (`NAMESPACE_NAME_LABEL`)."""
        return self.namespaces.get(namespace) or {NAMESPACE_NAME_LABEL: namespace}

    def in_namespace(self, namespace: str) -> list[Pod]:
        """Return the pods of a namespace."""
        return [self.pods[pod_id] for pod_id in self._by_namespace.get(namespace, ())]

    def selected(self, selector: PodSelector) -> list[Pod]:
        """Return the pods that the selector means."""
        # The indexes answer all but these, and a first resolution costs what is done for each of its pods.
        others = [requirement for requirement in selector.pods.requirements if requirement.operator is not Operator.IN]
        found = [pod for pod in map(self.pods.__getitem__, self._indexed(selector)) if not pod.host_network]
        return [pod for pod in found if all(other.holds(pod.labels) for other in others)] if others else found

    def _indexed(self, selector: PodSelector) -> Iterable[str]:
        """Return the pods in the namespaces that the selector means, with the labels it wants: all it says but what it rules out."""
        ways: list[list[set[str]]] = []
        if selector.namespace is not None:
            ways.append([self._by_namespace.get(selector.namespace, set())])
        elif selector.namespaces.requirements:
            ways.append([ids for name, ids in self._by_namespace.items() if selector.namespaces.matches(self.namespace_labels(name))])
        ways += [
            [self._by_label.get((requirement.key, value), set()) for value in dict.fromkeys(requirement.values)]
            for requirement in selector.pods.requirements
            if requirement.operator is Operator.IN
        ]
        if not ways:
            return self.pods
        best, *others = sorted(ways, key=lambda way: sum(map(len, way)))
        # The sets of one way have no pod in common, and meeting those of another happens in C.
        for other in others:
            best = [common for ids in best for more in other if (common := ids & more)]
        return chain.from_iterable(best)


def _discard(index: dict[T, set[str]], key: T, value: str) -> None:
    values = index[key]
    values.discard(value)
    if not values:
        del index[key]
