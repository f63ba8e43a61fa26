"""The store: state from events, the rule for bad objects, implied namespaces."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from polyplane.cluster.decode import implied_namespace
from polyplane.cluster.dialects.clusternetworkpolicy import CLUSTER_NETWORK_POLICY
from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY
from polyplane.cluster.model import Change, InSync, ObjectKey, PutObject, RemoveObject, SourceProblem
from polyplane.cluster.problems import Severity
from polyplane.cluster.store import Store
from polyplane.errors import ConfigError
from polyplane.ir.program import Direction

NP = "networking.k8s.io/v1"


def put(kind: str, name: str, namespace: str = "", api_version: Any = None, where: str = "", **content: Any) -> Any:
    api_version = api_version or (NP if kind == "NetworkPolicy" else "v1")
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **content.pop("metadata", {})}
    raw = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}
    return PutObject(key=ObjectKey(api_version, kind, namespace, name), raw=raw, where=where)


def pod(name: str = "web", namespace: str = "shop", ip: str = "10.1.0.5", **content: Any) -> Any:
    return put("Pod", name, namespace, **{"status": {"podIPs": [{"ip": ip}]}, **content})


def policy(name: str = "web", namespace: str = "shop", where: str = "", **spec: Any) -> Any:
    return put("NetworkPolicy", name, namespace, where=where, spec=spec)


def remove(event: Any) -> Any:
    return RemoveObject(event.key)


@pytest.fixture
def store() -> Any:
    return Store([NETWORK_POLICY])


def state(store: Store) -> Any:
    return dict(store.pods), dict(store.namespaces), dict(store.nodes), dict(store.policies), dict(store.problems)


def test_put_update_remove(store: Store) -> None:
    (change,) = store.apply(put("Node", "n1"))
    assert change == Change(None, store.nodes["n1"])
    old = store.nodes["n1"]
    (change,) = store.apply(put("Node", "n1", metadata={"labels": {"a": "b"}}))
    assert (change.old, change.new) == (old, store.nodes["n1"])
    (change,) = store.apply(RemoveObject(ObjectKey("v1", "Node", "", "n1")))
    assert change.new is None
    assert not store.nodes


def test_equal_content_is_no_change(store: Store) -> None:
    for event in (pod(), policy(), put("Namespace", "shop"), put("Node", "n1")):
        store.apply(event)
        assert store.apply(event) == []


def test_removing_what_is_not_there_is_no_change(store: Store) -> None:
    store.apply(put("Node", "web"))
    for kind, api_version in [("Pod", "v1"), ("NetworkPolicy", NP), ("Namespace", "v1"), ("Deployment", "apps/v1"), ("Node", "v2")]:
        assert store.apply(RemoveObject(ObjectKey(api_version, kind, "shop", "web"))) == []
    assert list(store.nodes) == ["web"]


def test_in_sync_comes_with_its_event(store: Store) -> None:
    assert not store.in_sync
    assert store.apply(InSync()) == []
    assert store.in_sync


def test_a_pod_implies_its_namespace(store: Store) -> None:
    namespace, new = store.apply(pod())
    assert namespace == Change(None, implied_namespace("shop"))
    assert new.new is store.pods["shop/web"]
    assert [change.old.name for change in store.apply(remove(pod()))] == ["web", "shop"]
    assert not store.namespaces


def test_a_namespaces_object_comes_and_goes_around_its_pods(store: Store) -> None:
    store.apply(pod())
    labelled = put("Namespace", "shop", metadata={"labels": {"team": "a"}})
    (change,) = store.apply(labelled)
    assert change.old == implied_namespace("shop")
    assert change.new.labels["team"] == "a"
    assert [type(change.new).__name__ for change in store.apply(pod("other"))] == ["Pod"]
    (change,) = store.apply(remove(labelled))
    assert change.new == implied_namespace("shop")
    store.apply(remove(pod()))
    assert list(store.namespaces) == ["shop"]
    store.apply(remove(pod("other")))
    assert not store.namespaces


def test_a_namespaces_object_that_says_nothing_new_is_no_change(store: Store) -> None:
    store.apply(pod())
    assert store.apply(put("Namespace", "shop")) == []
    assert [change.old.name for change in store.apply(remove(pod()))] == ["web"]
    assert store.namespaces["shop"] == implied_namespace("shop")


def test_missing_namespaces_are_default_and_superfluous_ones_are_dropped(store: Store) -> None:
    store.apply(pod(namespace=""))
    store.apply(policy(namespace=""))
    store.apply(replace(put("Node", "n1"), key=ObjectKey("v1", "Node", "default", "n1")))
    assert list(store.pods) == ["default/web"]
    assert [key.namespace for key in store.policies] == ["default"]
    assert list(store.nodes) == ["n1"]
    store.apply(remove(policy(namespace="default")))
    assert not store.policies


def test_an_invalid_new_policy_is_refused(store: Store) -> None:
    bad = policy(policyTypes=["ingress"], where="web.yaml, document 2, line 14")
    assert store.apply(bad) == []
    assert not store.policies
    (problem,) = store.problems.values()
    assert store.problems.keys() == {f"{NP} NetworkPolicy shop/web"}
    assert (problem.severity, problem.stale, problem.object) == (Severity.ERROR, False, "NetworkPolicy shop/web")
    assert problem.message == "spec.policyTypes[0]: 'ingress' is not a policy type"
    assert problem.remedy == "use Ingress or Egress"
    assert str(problem).startswith("web.yaml, document 2, line 14: NetworkPolicy shop/web: spec.policyTypes[0]: ")
    assert str(problem).endswith("(not in force)")


def test_an_invalid_update_leaves_the_last_valid_version(store: Store) -> None:
    store.apply(policy(ingress=[{}]))
    valid = dict(store.policies)
    assert store.apply(policy(policyTypes=["ingress"])) == []
    assert dict(store.policies) == valid
    (problem,) = store.problems.values()
    assert problem.stale
    assert "the last valid version stays in force" in str(problem)
    assert store.apply(policy(ingress=[{}])) == [], "the repair restores what was in force all the time"
    assert not store.problems


def test_a_repair_takes_effect_and_ends_the_problem(store: Store) -> None:
    store.apply(policy(policyTypes=["ingress"]))
    (change,) = store.apply(policy(policyTypes=["Egress"]))
    assert change.new.isolates == {Direction.EGRESS}
    assert not store.problems


def test_removal_removes_the_last_valid_version_and_the_problem(store: Store) -> None:
    store.apply(policy())
    store.apply(policy(policyTypes=["ingress"]))
    (change,) = store.apply(remove(policy()))
    assert change.new is None
    assert not store.policies
    assert not store.problems


def test_an_invalid_pod_keeps_its_last_valid_version(store: Store) -> None:
    store.apply(pod())
    before = state(store)
    assert store.apply(pod(ip="10.1.0.500")) == []
    assert state(store)[:4] == before[:4]
    assert store.problems["v1 Pod shop/web"].stale
    store.apply(pod(ip="10.1.0.6"))
    assert not store.problems
    assert str(store.pods["shop/web"].addresses[0]) == "10.1.0.6"


def test_an_invalid_namespace_leaves_the_implied_one(store: Store) -> None:
    store.apply(pod())
    assert store.apply(put("Namespace", "shop", metadata={"labels": {"a": "?"}})) == []
    assert store.namespaces["shop"] == implied_namespace("shop")
    assert not store.problems["v1 Namespace shop"].stale


def test_warnings_are_problems_of_something_in_force(store: Store) -> None:
    store.apply(policy(ingres=[], egres=[]))
    assert store.policies
    assert [(name, problem.severity) for name, problem in store.problems.items()] == [
        (f"{NP} NetworkPolicy shop/web", Severity.WARNING),
        (f"{NP} NetworkPolicy shop/web (2)", Severity.WARNING),
    ]
    assert str(store.problems[f"{NP} NetworkPolicy shop/web"]) == (
        "NetworkPolicy shop/web: spec: unknown field 'ingres' has no effect; did you mean ingress? (in force)"
    )
    store.apply(policy())
    assert not store.problems


def test_unknown_kinds_are_ignored(store: Store) -> None:
    for event in (
        put("Deployment", "web", "shop", "apps/v1"),
        put("Service", "web", "shop"),
        put("Ingress", "web", "shop", NP),
        put("Pod", "web", "shop", "v2"),
    ):
        assert store.apply(event) == []
    assert state(store) == ({}, {}, {}, {}, {})


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
        ("extensions/v1beta1", "NetworkPolicy"),
        ("k8s.ovn.org/v1", "EgressFirewall"),
    ],
)
def test_policies_without_dialect_are_reported(store: Store, api_version: str, kind: str) -> None:
    event = put(kind, "web", "", api_version)
    assert store.apply(event) == []
    (problem,) = store.problems.values()
    assert problem.message == f"no installed dialect reads {api_version} {kind}"
    assert problem.consequence == "not in force"
    store.apply(remove(event))
    assert not store.problems


def test_problems_of_the_source_come_and_go(store: Store) -> None:
    store.apply(SourceProblem(where="web.yaml, line 3", problem="bad indentation; indent by two", stale=True))
    assert (
        str(store.problems["web.yaml, line 3"])
        == "web.yaml, line 3: bad indentation; indent by two (the last valid version stays in force)"
    )
    store.apply(SourceProblem(where="web.yaml, line 3", problem=None))
    store.apply(SourceProblem(where="web.yaml, line 3", problem=None))
    assert not store.problems


def test_a_dialect_that_breaks_its_contract_disturbs_nobody() -> None:
    def parse(raw: Any) -> Any:
        return raw["no such key"]

    store = Store([replace(NETWORK_POLICY, parse=parse)])
    assert store.apply(policy()) == []
    (problem,) = store.problems.values()
    assert "KeyError" in problem.message
    assert len(store.apply(pod())) == 2


def test_two_dialects_must_not_claim_one_kind() -> None:
    with pytest.raises(ConfigError, match=r"two dialects read networking\.k8s\.io/v1 NetworkPolicy"):
        Store([NETWORK_POLICY, NETWORK_POLICY])


def test_the_order_of_events_does_not_matter() -> None:
    events = [
        pod(),
        pod("other", ip="10.1.0.6"),
        put("Namespace", "shop", metadata={"labels": {"team": "a"}}),
        policy(ingress=[{}]),
        policy("bad", policyTypes=["x"]),
        put("Node", "n1"),
    ]
    states = []
    for order in itertools.permutations(events):
        store = Store([NETWORK_POLICY])
        replayed = {}
        for event in order:
            for change in store.apply(event):
                thing = change.new or change.old
                name = (type(thing).__name__, getattr(thing, "namespace", ""), thing.key if hasattr(thing, "key") else thing.name)
                assert replayed.get(name) == change.old, "changes continue one another"
                replayed[name] = change.new
        states.append(state(store))
        assert len([thing for thing in replayed.values() if thing is not None]) == 5
    assert all(other == states[0] for other in states)


# --- policies that have a place in a tier --------------------------------------------------------------------------------


def tiered(name: str, priority: int = 1, tier: str = "Admin", **spec: Any) -> Any:
    content = {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, **spec}
    return put("ClusterNetworkPolicy", name, api_version="policy.networking.k8s.io/v1alpha2", spec=content)


@pytest.fixture
def tiers() -> Any:
    return Store([NETWORK_POLICY, CLUSTER_NETWORK_POLICY])


def test_equal_priorities_of_a_tier_are_one_warning(tiers: Store) -> None:
    for event in (tiered("b"), tiered("c", priority=2), tiered("d", tier="Baseline"), policy("x"), policy("y")):
        tiers.apply(event)
    assert tiers.problems == {}
    tiers.apply(tiered("a"))
    (problem,) = tiers.problems.values()
    assert problem.severity is Severity.WARNING
    assert str(problem) == (
        "ClusterNetworkPolicy a: priority 1 of tier admin is shared by ClusterNetworkPolicy a, ClusterNetworkPolicy b, "
        "which are taken by name; give each a priority of its own (in force)"
    )
    tiers.apply(tiered("c"))
    assert "ClusterNetworkPolicy c" in next(iter(tiers.problems.values())).message
    tiers.apply(remove(tiered("a")))
    tiers.apply(tiered("c", priority=3))
    assert tiers.problems == {}
    tiers.apply(remove(tiered("b")))
    tiers.apply(remove(tiered("c")))
    assert tiers.problems == {}


def test_many_of_one_priority_are_not_all_named(tiers: Store) -> None:
    for number in range(8):
        tiers.apply(tiered(f"p{number}"))
    (problem,) = tiers.problems.values()
    assert "ClusterNetworkPolicy p4 and 3 more, which" in problem.message


def test_what_nobody_can_do_is_an_error_of_an_object_in_force(tiers: Store) -> None:
    event = tiered("names", egress=[{"action": "Accept", "to": [{"domainNames": ["example.org"]}]}])
    tiers.apply(event)
    assert event.key in tiers.policies
    (problem,) = tiers.problems.values()
    assert (problem.severity, problem.key, problem.fails_closed) == (Severity.ERROR, event.key, True)
    assert problem.consequence == "the rule fails closed"
    tiers.apply(tiered("names"))
    assert tiers.problems == {}
