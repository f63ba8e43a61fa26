"""`Compiler`: changes of the cluster to the program of this node, doing only what the changes make necessary.

Only policies that select pods of this node are *active*; only what active policies ask for is resolved; only endpoints whose
policies, ports or addresses changed are built anew. The result depends on the current state alone, never on the order of
events, and values that did not change stay the same objects, which is what makes `diff` cheap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from polyplane.cluster.model import Change, ClusterPolicy, Namespace, Node, ObjectKey, Pod
from polyplane.compile.lower import asked_names, lower, origin_of, port_names, wanted_by
from polyplane.compile.places import Places
from polyplane.compile.resolve import NamedPorts, PeerSets, Wanted
from polyplane.compile.rule_ids import RuleIds
from polyplane.compile.selection import Selection
from polyplane.compile.selectors import PodIndex
from polyplane.compile.stacks import build_stack, plan
from polyplane.compile.strangers import Strangers
from polyplane.compile.whereabouts import Whereabouts
from polyplane.ir.cidr import Cidr
from polyplane.ir.features import ALL_FEATURES, Capabilities
from polyplane.ir.program import AddressSet, Direction, Endpoint, EndpointId, Options, Policy, PolicyId, Program, SetId

#: A policy of the IR is made once for each subject port naming that it depends on.
_Variant = tuple[ObjectKey, Direction, tuple[tuple[tuple[str, int | None], tuple[tuple[int, int], ...]], ...]]


class Compiler:
    """Compiles for one node. A state machine without I/O.

    :param node: name of the node; pods with this ``spec.nodeName`` are its endpoints
    :param capabilities: of the backend; what it cannot do fails closed (`unsupported` says what)
    :param node_addresses: of the node, besides those its Node object states
    :param deny_strangers: whether what is on this node and belongs to no known pod is denied all traffic
    :param pod_prefixes: of this node's pods, for that; without any those that its Node object states
    """

    def __init__(
        self,
        *,
        node: str,
        capabilities: Capabilities = ALL_FEATURES,
        options: Options | None = None,
        node_addresses: frozenset[Cidr] = frozenset(),
        deny_strangers: bool = False,
        pod_prefixes: Iterable[Cidr] = (),
    ) -> None:
        self.node: Final = node
        self.capabilities: Final = capabilities
        self.program = Program(options=options or Options(), node_addresses=node_addresses)
        #: How often each kind of work was done since the start.
        self.recomputations: Final[Counter[str]] = Counter()
        #: What the backend cannot do of each active policy, by direction; such parts fail closed.
        self._gaps: Final[dict[ObjectKey, dict[Direction, tuple[str, ...]]]] = {}
        self._pods: Final = PodIndex()
        self._sets: Final = PeerSets(self._pods, self.recomputations)
        self._ids: Final = RuleIds()
        self._whereabouts: Final = Whereabouts(node, node_addresses, Strangers(pod_prefixes, self._ids) if deny_strangers else None)
        self._selection: Final = Selection(self._pods, self.recomputations)
        self._active: Final[dict[ObjectKey, ClusterPolicy]] = {}
        self._named_users: Final[dict[NamedPorts, set[ObjectKey]]] = {}
        self._name_owner: Final[dict[str, ObjectKey]] = {}
        self._variants: Final[dict[_Variant, Policy]] = {}
        self._variants_of: Final[dict[ObjectKey, set[_Variant]]] = {}
        self._isolations: Final[dict[EndpointId, tuple[str, ...]]] = {}
        self._policy_users: Final[Counter[PolicyId]] = Counter()
        self._set_users: Final[Counter[SetId]] = Counter()
        self._dirty_policies: Final[set[ObjectKey]] = set()

    @property
    def unsupported(self) -> Mapping[ObjectKey, tuple[str, ...]]:
        """What the backend cannot do of each active policy; such parts fail closed."""
        return {key: tuple(gap for gaps in by_direction.values() for gap in gaps) for key, by_direction in self._gaps.items()}

    def set_options(self, options: Options) -> Program:
        """Change the operator's choices; return the program with them."""
        if options != self.program.options:
            self.program = replace(self.program, options=options, revision=self.program.revision + 1)
        return self.program

    def set_node_addresses(self, node_addresses: frozenset[Cidr]) -> Program:
        """Change the addresses of the node besides those its Node object states; return the program with them."""
        self._whereabouts.give_addresses(node_addresses)
        return self._publish()

    def set_places(self, places: Places) -> Program:
        """Tell where on this node pods are, for those that do not say it; return the program with them."""
        for endpoint_id, pod in self._whereabouts.give_places(places):
            self._selection.place(endpoint_id, self._whereabouts.locate(endpoint_id, pod))
        self._settle_active()
        return self._publish()

    def update(self, changes: Iterable[Change]) -> Program:
        """Follow the changes; return the program, the identical object if nothing in it changed."""
        for change in changes:
            match change.new or change.old:
                case Pod():
                    self._pod_changed(change)
                case Namespace(name=name):
                    self._namespace_changed(name, change)
                case ClusterPolicy():
                    self._policy_changed(change)
                case Node():
                    self._node_changed(change)
        self._settle_active()
        return self._publish()

    # --- one change at a time: who selects whom ---

    def _pod_changed(self, change: Change) -> None:
        old = change.old if isinstance(change.old, Pod) else None
        new = change.new if isinstance(change.new, Pod) else None
        if old is not None:
            self._pods.remove(old)
        if new is not None:
            self._pods.put(new)
        self._sets.pod_changed(old, new)
        pod = new or old
        if pod is not None and self.node in (old and old.node, new and new.node):
            self._selection.place(EndpointId(pod.id), self._whereabouts.locate(EndpointId(pod.id), new))

    def _namespace_changed(self, name: str, change: Change) -> None:
        before = dict(self._pods.namespace_labels(name))
        if isinstance(change.new, Namespace):
            self._pods.namespaces[name] = change.new.labels
        else:
            self._pods.namespaces.pop(name, None)
        after = dict(self._pods.namespace_labels(name))
        if before == after:
            return
        self._sets.namespace_changed(name, before, after)
        self._selection.follow_namespace(name)

    def _policy_changed(self, change: Change) -> None:
        old = change.old if isinstance(change.old, ClusterPolicy) else None
        new = change.new if isinstance(change.new, ClusterPolicy) else None
        if old is not None:
            self._selection.remove_policy(old)
            self._dirty_policies.add(old.key)
        if new is not None:
            self._selection.add_policy(new)
            self._dirty_policies.add(new.key)

    def _node_changed(self, change: Change) -> None:
        old = change.old if isinstance(change.old, Node) else None
        new = change.new if isinstance(change.new, Node) else None
        self._sets.node_changed(old, new)
        if self.node in (old and old.name, new and new.name):
            self._whereabouts.follow_node(new)

    # --- after all changes: what active policies ask for ---

    def _settle_active(self) -> None:
        """Acquire what newly active policies ask for, then release what nobody asks for any more, then mark what moved."""
        touched = {key for endpoint_id in self._selection.dirty for key in self._selection.selecting(endpoint_id)}
        touched |= self._dirty_policies
        touched |= self._selection.deselected
        self._selection.deselected.clear()
        retired: list[tuple[ObjectKey, ClusterPolicy]] = []
        moved_names: set[str] = set()
        for key in sorted(touched):
            old, new = self._active.get(key), self._selection.policies.get(key) if self._selection.selected(key) else None
            if new is old:
                continue
            if new is not None:
                self._active[key] = new
                for wanted in wanted_by(new):
                    self._sets.acquire(wanted)
                    self._use_named(wanted, key)
                moved_names |= self._ids.acquire(_names(new))
                self._name_owner.update((name, key) for name in _names(new))
            if old is not None:
                retired.append((key, old))
            self._dirty_policies.add(key)
        for key, old in retired:
            for wanted in wanted_by(old):
                self._sets.release(wanted)
            moved_names |= self._ids.release(_names(old))
            if key in self._active and self._active[key] is old:
                del self._active[key]
            self._forget(key, old)
        for named in self._sets.moved:
            self._dirty_policies.update(self._named_users.get(named, ()))
        self._sets.moved.clear()
        self._mark_moved(moved_names)

    def _use_named(self, wanted: Wanted, key: ObjectKey) -> None:
        if isinstance(wanted, NamedPorts):
            self._named_users.setdefault(wanted, set()).add(key)

    def _forget(self, key: ObjectKey, old: ClusterPolicy) -> None:
        """Drop the registrations that the old version of a policy had and its new one, if any, has not."""
        new = self._active.get(key)
        keep_wanted = set(wanted_by(new)) if new is not None else set()
        for wanted in set(wanted_by(old)) - keep_wanted:
            if isinstance(wanted, NamedPorts):
                self._named_users[wanted].discard(key)
                if not self._named_users[wanted]:
                    del self._named_users[wanted]
        keep_names = set(_names(new)) if new is not None else set()
        for name in set(_names(old)) - keep_names:
            del self._name_owner[name]

    def _mark_moved(self, names: set[str]) -> None:
        """Ids that gave way to a colliding name: lower their policies again, rebuild endpoints isolated under them."""
        self._whereabouts.follow_ids(names)
        for name in names:
            if name in self._name_owner:
                self._dirty_policies.add(self._name_owner[name])
            self._selection.dirty.update(endpoint_id for endpoint_id, held in self._isolations.items() if name in held)

    # --- the new program ---

    def _publish(self) -> Program:
        """Lower and build what is dirty; return the program with it."""
        for key in self._dirty_policies:
            self._gaps.pop(key, None)
            for variant in self._variants_of.pop(key, ()):
                del self._variants[variant]
            self._selection.dirty.update(self._selection.selected(key))
        self._dirty_policies.clear()
        changed: dict[str, object] = {}
        endpoints, policies = self._build_endpoints()
        endpoints |= self._whereabouts.strangers(self._selection.local.values())
        if endpoints:
            changed["endpoints"] = _changed(self.program.endpoints, endpoints)
        if policies:
            changed["policies"] = _changed(self.program.policies, policies)
        if sets := self._build_sets(policies):
            changed["sets"] = _changed(self.program.sets, sets)
        if self._whereabouts.addresses != self.program.node_addresses:
            changed["node_addresses"] = self._whereabouts.addresses
        if changed:
            self.program = replace(self.program, revision=self.program.revision + 1, **changed)  # type: ignore[arg-type]  # keys are field names
        return self.program

    def _build_endpoints(self) -> tuple[dict[EndpointId, Endpoint | None], dict[PolicyId, Policy | None]]:
        """Build the dirty endpoints; return the endpoints and policies that changed, None for those that are gone."""
        endpoints: dict[EndpointId, Endpoint | None] = {}
        lowered: dict[PolicyId, Policy] = {}
        users: Counter[PolicyId] = Counter()
        while self._selection.dirty:
            endpoint_id = min(self._selection.dirty)
            self._selection.dirty.discard(endpoint_id)
            old = endpoints[endpoint_id] if endpoint_id in endpoints else self.program.endpoints.get(endpoint_id)
            new = self._build_endpoint(endpoint_id, lowered)
            if new == old:
                continue
            endpoints[endpoint_id] = new
            users.update(_policy_ids(new))
            users.subtract(_policy_ids(old))
        policies: dict[PolicyId, Policy | None] = {}
        for policy_id, difference in users.items():
            self._policy_users[policy_id] += difference
            if not self._policy_users[policy_id]:
                del self._policy_users[policy_id]
                if policy_id in self.program.policies:
                    policies[policy_id] = None
            elif policy_id not in self.program.policies:
                policies[policy_id] = lowered[policy_id]
        return endpoints, policies

    def _build_endpoint(self, endpoint_id: EndpointId, lowered: dict[PolicyId, Policy]) -> Endpoint | None:
        """Build one endpoint, None if the pod is none of this node any more; adds the policies it uses to ``lowered``."""
        pod = self._selection.local.get(endpoint_id)
        selecting = [self._selection.policies[key] for key in self._selection.selecting(endpoint_id)]
        plans = {direction: plan(selecting, direction) for direction in Direction}
        self._hold_isolations(endpoint_id, tuple(tier.isolation_name for tiers in plans.values() for tier in tiers if tier.isolating))
        if pod is None:
            return None
        self.recomputations["endpoints built"] += 1

        def use(policy: ClusterPolicy, direction: Direction) -> PolicyId | None:
            result = self._lower(policy, direction, pod)
            if result.rules:
                lowered[result.id] = result
            return result.id if result.rules else None

        return Endpoint(
            id=endpoint_id,
            interface=pod.interface,
            addresses=tuple(sorted(pod.addresses)),
            ingress=build_stack(plans[Direction.INGRESS], lambda policy: use(policy, Direction.INGRESS), self._ids),
            egress=build_stack(plans[Direction.EGRESS], lambda policy: use(policy, Direction.EGRESS), self._ids),
        )

    def _hold_isolations(self, endpoint_id: EndpointId, names: tuple[str, ...]) -> None:
        """Register the isolations of an endpoint in place of those it had."""
        before = self._isolations.get(endpoint_id, ())
        if names:
            self._isolations[endpoint_id] = names
        else:
            self._isolations.pop(endpoint_id, None)
        if before != names:
            self._mark_moved(self._ids.acquire(names) | self._ids.release(before))

    def _lower(self, policy: ClusterPolicy, direction: Direction, pod: Pod) -> Policy:
        names = port_names(asked_names(policy), pod.ports) if direction is Direction.INGRESS else {}
        variant: _Variant = (policy.key, direction, tuple(names.items()))
        lowered = self._variants.get(variant)
        if lowered is None:
            self.recomputations["policies lowered"] += 1
            lowered, gaps = lower(policy, direction, sets=self._sets, names=names, ids=self._ids, capabilities=self.capabilities)
            self._variants[variant] = lowered
            self._variants_of.setdefault(policy.key, set()).add(variant)
            if gaps:
                self._gaps.setdefault(policy.key, {})[direction] = gaps
        return lowered

    def _build_sets(self, policies: Mapping[PolicyId, Policy | None]) -> dict[SetId, AddressSet | None]:
        """Return the sets that changed, given the policies that did; None for those that no policy of the program names."""
        touched = set(self._sets.dirty)
        self._sets.dirty.clear()
        for policy_id, policy in policies.items():
            named = (policy or self.program.policies[policy_id]).sets
            by = 1 if policy is not None else -1
            for set_id in named:
                self._set_users[set_id] += by
            touched |= named
        sets: dict[SetId, AddressSet | None] = {}
        for set_id in touched:
            old = self.program.sets.get(set_id)
            new = None
            if self._set_users[set_id]:
                self.recomputations["sets published"] += 1
                new = self._sets.publish(set_id)
            else:
                del self._set_users[set_id]
            if new is not old:
                sets[set_id] = new
        return sets


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _changed(base: Mapping[_Key, _Value], changes: Mapping[_Key, _Value | None]) -> dict[_Key, _Value]:
    """Return a copy of ``base`` with the changes made; None removes."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def _names(policy: ClusterPolicy) -> list[str]:
    """Return the names under which a policy's rules have their ids."""
    return [str(origin_of(policy, direction, index)) for direction, rules in policy.rules.items() for index in range(len(rules))]


def _policy_ids(endpoint: Endpoint | None) -> set[PolicyId]:
    if endpoint is None:
        return set()
    return {policy_id for direction in Direction for tier in endpoint.stack(direction) for policy_id in tier.policies}
