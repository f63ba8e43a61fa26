"""`Selection`: which policies select which pods of this node, in both directions, followed change by change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

from polyplane.cluster.model import ClusterPolicy, ObjectKey, Pod
from polyplane.compile.selectors import PodIndex, SelectorIndex, selects
from polyplane.ir.program import EndpointId


class Selection:
    """The pods of one node that are endpoints, all policies, and who selects whom.

    :param pods: all pods of the cluster; must know of a change before `place` or `follow_namespace` is told
    :param recomputations: counts selectors tried
    :ivar local: the endpoints: pods of this node with addresses of their own
    :ivar policies: all policies
    :ivar dirty: endpoints that came, went or changed, or whose policies did; whoever reads them clears them
    :ivar deselected: policies that selected an endpoint before and may select none now; likewise
    """

    def __init__(self, pods: PodIndex, recomputations: Counter[str]) -> None:
        self._pods: Final = pods
        self._recomputations: Final = recomputations
        self._subjects: Final[SelectorIndex[ObjectKey]] = SelectorIndex()
        self._selecting: Final[dict[EndpointId, set[ObjectKey]]] = {}
        self._selected: Final[dict[ObjectKey, set[EndpointId]]] = {}
        self._local_in: Final[dict[str, set[EndpointId]]] = {}
        self.local: Final[dict[EndpointId, Pod]] = {}
        self.policies: Final[dict[ObjectKey, ClusterPolicy]] = {}
        self.dirty: Final[set[EndpointId]] = set()
        self.deselected: Final[set[ObjectKey]] = set()

    def selecting(self, endpoint_id: EndpointId) -> Collection[ObjectKey]:
        """Return the policies that select an endpoint; none for what is no endpoint."""
        return self._selecting.get(endpoint_id, ())

    def selected(self, key: ObjectKey) -> Collection[EndpointId]:
        """Return the endpoints that a policy selects."""
        return self._selected.get(key, ())

    def place(self, endpoint_id: EndpointId, pod: Pod | None) -> None:
        """Take in an endpoint and find the policies that select it; None: it is none, or not any more."""
        if pod is not None:
            self.local[endpoint_id] = pod
            self._local_in.setdefault(pod.namespace, set()).add(endpoint_id)
            self._select(endpoint_id)
        elif (old := self.local.pop(endpoint_id, None)) is not None:
            self._local_in[old.namespace].discard(endpoint_id)
            if not self._local_in[old.namespace]:
                del self._local_in[old.namespace]
            self._deselect(endpoint_id, self._selecting.pop(endpoint_id))
        self.dirty.add(endpoint_id)

    def follow_namespace(self, name: str) -> None:
        """Find anew what selects the endpoints of a namespace whose labels changed."""
        for endpoint_id in self._local_in.get(name, ()):
            self._select(endpoint_id)

    def add_policy(self, policy: ClusterPolicy) -> None:
        """Take in a policy that is not there, and find the endpoints it selects."""
        self._subjects.add(policy.key, policy.subject)
        self.policies[policy.key] = policy
        namespace = policy.subject.namespace
        for endpoint_id in self.local if namespace is None else self._local_in.get(namespace, ()):
            pod = self.local[endpoint_id]
            self._recomputations["subjects tried"] += 1
            if selects(policy.subject, pod, self._pods.namespace_labels(pod.namespace)):
                self._selecting[endpoint_id].add(policy.key)
                self._selected.setdefault(policy.key, set()).add(endpoint_id)
                self.dirty.add(endpoint_id)

    def remove_policy(self, policy: ClusterPolicy) -> None:
        """Forget a policy that is there."""
        self._subjects.remove(policy.key, policy.subject)
        del self.policies[policy.key]
        for endpoint_id in self._selected.pop(policy.key, ()):
            self._selecting[endpoint_id].discard(policy.key)
            self.dirty.add(endpoint_id)

    def _select(self, endpoint_id: EndpointId) -> None:
        pod = self.local[endpoint_id]
        labels = self._pods.namespace_labels(pod.namespace)
        now = set()
        for key, selector in self._subjects.candidates(pod):
            self._recomputations["subjects tried"] += 1
            if selects(selector, pod, labels):
                now.add(key)
        before = self._selecting.get(endpoint_id, set())
        self._deselect(endpoint_id, before - now)
        for key in now - before:
            self._selected.setdefault(key, set()).add(endpoint_id)
        if now != before:
            self.dirty.add(endpoint_id)
        self._selecting[endpoint_id] = now

    def _deselect(self, endpoint_id: EndpointId, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            self._selected[key].discard(endpoint_id)
            if not self._selected[key]:
                del self._selected[key]
                self.deselected.add(key)
