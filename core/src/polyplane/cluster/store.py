"""`Store`: what the cluster says now, as a pure state machine over the events of a source.

The rule for bad objects is the API server's: an invalid new object is refused, an invalid update leaves the last valid version in
force, and both are reported until they are repaired or removed. Apart from that, the state depends only on the objects that
are there, never on the order in which they came.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from polyplane.cluster.decode import DECODERS, implied_namespace
from polyplane.cluster.metadata import DEFAULT_NAMESPACE
from polyplane.cluster.model import (
    Change,
    ClusterPolicy,
    Dialect,
    InSync,
    Namespace,
    Node,
    ObjectKey,
    Pod,
    PutObject,
    RemoveObject,
    SourceEvent,
    SourceProblem,
    TierSpec,
)
from polyplane.cluster.problems import (
    Problem,
    broken_dialect,
    equal_order,
    invalid_object,
    no_dialect,
    unreadable,
    unsupported,
    warning,
)
from polyplane.errors import ConfigError, InvalidObject

_Object = Pod | Namespace | Node | ClusterPolicy
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

#: How the kinds of the known policy APIs end (Kubernetes, network-policy-api, Calico, Cilium's long names, Antrea, OVN-Kubernetes).
_POLICY_ENDINGS: Final = ("NetworkPolicy", "EgressFirewall")


class Store:
    """Holds the valid objects and the current problems; `apply` turns an event into the changes it makes.

    The mappings it shows are live views: read them, do not keep them across `apply` as if they were snapshots.
    """

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        """Make an empty store that understands the given policy APIs.

        :raises polyplane.errors.ConfigError: when two dialects claim the same kind
        """
        self._dialects: dict[tuple[str, str], Dialect] = {}
        for dialect in dialects:
            claim = (dialect.api_version, dialect.kind)
            if claim in self._dialects:
                raise ConfigError(f"two dialects read {dialect.api_version} {dialect.kind}; uninstall the plugin of one of them")
            self._dialects[claim] = dialect
        self._pods: dict[str, Pod] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._nodes: dict[str, Node] = {}
        self._policies: dict[ObjectKey, ClusterPolicy] = {}
        self._declared_namespaces: dict[str, Namespace] = {}
        self._pods_per_namespace: Counter[str] = Counter()
        self._problems: dict[str, Problem] = {}
        self._problems_of: dict[ObjectKey, tuple[str, ...]] = {}
        #: Policies by tier and order, those that have one.
        self._places: dict[tuple[TierSpec, tuple[int, ...]], list[ObjectKey]] = {}
        self._in_sync = False

    @property
    def in_sync(self) -> bool:
        """Whether the source has delivered everything it had at its start."""
        return self._in_sync

    @property
    def pods(self) -> Mapping[str, Pod]:
        """Pods by ``namespace/name``."""
        return MappingProxyType(self._pods)

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        """Namespaces by name; also those that are only implied by a pod in them."""
        return MappingProxyType(self._namespaces)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return MappingProxyType(self._nodes)

    @property
    def policies(self) -> Mapping[ObjectKey, ClusterPolicy]:
        """Policies of all dialects."""
        return MappingProxyType(self._policies)

    @property
    def problems(self) -> Mapping[str, Problem]:
        """What is wrong now: by object (``networking.k8s.io/v1 NetworkPolicy shop/web``), by place in the source, or by place in a tier."""
        return MappingProxyType(self._problems)

    def apply(self, event: SourceEvent) -> list[Change]:
        """Take in one event and return what it changes; no event, however bad its content, raises."""
        match event:
            case PutObject():
                return self._put(event)
            case RemoveObject():
                return self._remove(self._normal(event.key))
            case InSync():
                self._in_sync = True
            case SourceProblem(problem=None):
                self._problems.pop(event.where, None)
            case SourceProblem():
                self._problems[event.where] = unreadable(event)
        return []

    def _normal(self, key: ObjectKey) -> ObjectKey:
        """Give the key the namespace that its kind calls for."""
        dialect = self._dialects.get((key.api_version, key.kind))
        if dialect is not None:
            namespaced = dialect.namespaced
        elif key.api_version == "v1" and key.kind in DECODERS:
            namespaced = key.kind == "Pod"
        else:
            return key
        return key._replace(namespace=(key.namespace or DEFAULT_NAMESPACE) if namespaced else "")

    def _put(self, event: PutObject) -> list[Change]:
        key = self._normal(event.key)
        dialect = self._dialects.get((key.api_version, key.kind))
        decode = dialect.parse if dialect is not None else DECODERS.get(key.kind) if key.api_version == "v1" else None
        if decode is None:
            self._report(key, [no_dialect(key, event.where)] if _is_policy(key) else [])
            return []
        try:
            new: _Object = decode(event.raw)
        except InvalidObject as error:
            self._report(key, [invalid_object(key, event.place_of(error.field), error, stale=self._current(key) is not None)])
            return []
        except Exception as error:  # noqa: BLE001 - a plugin that breaks its contract on one object must not end the enforcement of all others
            self._report(key, [broken_dialect(key, event.where, error, stale=self._current(key) is not None)])
            return []
        problems = []
        if isinstance(new, ClusterPolicy):
            problems += [unsupported(key, event.place_of(_field_of(text)), text) for text in new.unsupported]
            problems += [warning(key, event.place_of(_field_of(text)), text) for text in new.warnings]
        self._report(key, problems)
        return self._replace(key, new)

    def _remove(self, key: ObjectKey) -> list[Change]:
        self._report(key, [])
        return self._replace(key, None)

    def _report(self, key: ObjectKey, problems: list[Problem]) -> None:
        """Make these the problems of the object, in place of those it had."""
        for name in self._problems_of.pop(key, ()):
            self._problems.pop(name, None)
        if problems:
            base = f"{key.api_version} {key}"
            names = tuple(base if number == 1 else f"{base} ({number})" for number in range(1, len(problems) + 1))
            self._problems.update(zip(names, problems, strict=True))
            self._problems_of[key] = names

    def _current(self, key: ObjectKey) -> _Object | None:
        """The valid version of an object that is in force, if any."""
        if (key.api_version, key.kind) in self._dialects:
            return self._policies.get(key)
        match (key.api_version, key.kind):
            case ("v1", "Pod"):
                return self._pods.get(f"{key.namespace}/{key.name}")
            case ("v1", "Namespace"):
                return self._declared_namespaces.get(key.name)
            case ("v1", "Node"):
                return self._nodes.get(key.name)
            case _:
                return None

    def _replace(self, key: ObjectKey, new: _Object | None) -> list[Change]:
        """Put the new version of an object in force (None: remove it)."""
        match new if new is not None else self._current(key):
            case None:
                return []
            case Pod():
                return self._replace_pod(f"{key.namespace}/{key.name}", new if isinstance(new, Pod) else None)
            case Namespace():
                _set(self._declared_namespaces, key.name, new if isinstance(new, Namespace) else None)
                return self._settle_namespace(key.name)
            case Node():
                return _set(self._nodes, key.name, new if isinstance(new, Node) else None)
            case ClusterPolicy():
                return self._replace_policy(key, new if isinstance(new, ClusterPolicy) else None)

    def _replace_policy(self, key: ObjectKey, new: ClusterPolicy | None) -> list[Change]:
        old = self._policies.get(key)
        for policy, comes in ((old, False), (new, True)):
            if policy is not None and policy.order:
                self._settle_place(policy, comes=comes)
        return _set(self._policies, key, new)

    def _settle_place(self, policy: ClusterPolicy, *, comes: bool) -> None:
        """Note that a policy has come to its place in a tier, or left it, and whether it is the only one there."""
        place = policy.tier, policy.order
        keys = self._places.setdefault(place, [])
        if comes:
            insort(keys, policy.key)
        else:
            keys.remove(policy.key)
        name = f"tier {policy.tier.name}, priority {'.'.join(map(str, policy.order))}"
        if len(keys) > 1:
            self._problems[name] = equal_order(policy.tier, policy.order, keys)
        else:
            self._problems.pop(name, None)
            if not keys:
                del self._places[place]

    def _replace_pod(self, pod_id: str, new: Pod | None) -> list[Change]:
        namespace = pod_id.partition("/")[0]
        before = pod_id in self._pods
        changes = _set(self._pods, pod_id, new)
        self._pods_per_namespace[namespace] += (new is not None) - before
        # A pod is never seen in a namespace that is not there: the namespace comes first and goes last.
        settled = self._settle_namespace(namespace)
        return settled + changes if new is not None else changes + settled

    def _settle_namespace(self, name: str) -> list[Change]:
        """Bring what is known of a namespace up to date: its object, or else what its pods imply, or else nothing."""
        namespace = self._declared_namespaces.get(name)
        if namespace is None and self._pods_per_namespace[name]:
            namespace = implied_namespace(name)
        if not self._pods_per_namespace[name]:
            del self._pods_per_namespace[name]
        return _set(self._namespaces, name, namespace)


def _set(table: dict[_Key, _Value], key: _Key, new: _Value | None) -> list[Change]:
    """Put or remove one value; the change, unless it is none."""
    old = table.get(key)
    if old == new:
        return []
    if new is None:
        del table[key]
    else:
        table[key] = new
    # The type checker cannot see that the tables hold nothing else than what a change may carry.
    return [Change(old, new)]  # type: ignore[arg-type]


def _field_of(text: str) -> str:
    """Return the field that a note of a dialect is about; notes begin with it."""
    return text.partition(": ")[0]


def _is_policy(key: ObjectKey) -> bool:
    return key.kind.endswith(_POLICY_ENDINGS)
