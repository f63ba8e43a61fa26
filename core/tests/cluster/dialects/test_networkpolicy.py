"""What NetworkPolicies mean: defaults, empty against missing, translation, warnings."""

from __future__ import annotations

from typing import Any

import pytest

from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY, TIER, NetworkPolicyDialect, parse_network_policy
from polyplane.cluster.model import (
    EVERYTHING,
    CidrPeer,
    LabelSelector,
    ObjectKey,
    Operator,
    PodPeer,
    PodSelector,
    PolicyRule,
    PortMatch,
    Requirement,
)
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import SCTP, TCP, UDP, Action, Direction, TierEnd

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
ANYTHING = PolicyRule(action=Action.ALLOW)


def parse(spec: Any = None, **metadata: Any) -> Any:
    raw = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop", **metadata}}
    return parse_network_policy(raw if spec is None else {**raw, "spec": spec})


def ingress(rule: Any) -> Any:
    (only,) = parse({"ingress": [rule]}).rules[INGRESS]
    return only


def peer(item: Any) -> Any:
    (only,) = ingress({"from": [item]}).peers
    return only


def port(item: Any) -> Any:
    (only,) = ingress({"ports": [item]}).ports
    return only


def selector(**labels: Any) -> Any:
    return LabelSelector(tuple(sorted(Requirement(key, Operator.IN, (value,)) for key, value in labels.items())))


def test_identity_subject_and_tier() -> None:
    policy = parse({"podSelector": {"matchLabels": {"app": "web"}}})
    assert policy.key == ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", "web")
    assert policy.subject == PodSelector(namespace="shop", pods=selector(app="web"))
    assert policy.tier is TIER
    assert (TIER.name, TIER.end, TIER.exempts_self) == ("networkpolicy", TierEnd.DENY, True)
    assert policy.warnings == ()


def test_an_object_without_namespace_is_in_default() -> None:
    assert parse({}, namespace=None).key.namespace == "default"
    assert parse({}, namespace="").subject.namespace == "default"


@pytest.mark.parametrize(
    ("spec", "isolates"),
    [
        (None, {INGRESS}),
        ({}, {INGRESS}),
        ({"policyTypes": []}, {INGRESS}),
        ({"policyTypes": None}, {INGRESS}),
        ({"egress": []}, {INGRESS}),
        ({"egress": None}, {INGRESS}),
        ({"egress": [{}]}, {INGRESS, EGRESS}),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, {INGRESS}),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, {EGRESS}),
        ({"policyTypes": ["Egress"]}, {EGRESS}),
        ({"policyTypes": ["Egress", "Ingress"]}, {INGRESS, EGRESS}),
        ({"policyTypes": ["Ingress", "Ingress"]}, {INGRESS}),
    ],
)
def test_policy_types(spec: Any, isolates: Any) -> None:
    policy = parse(spec)
    assert policy.isolates == isolates
    assert policy.rules.keys() == isolates


@pytest.mark.parametrize(
    "everything", [{}, {"podSelector": {}}, {"podSelector": None}, {"podSelector": {"matchLabels": {}, "matchExpressions": []}}]
)
def test_no_pod_selector_selects_all_pods_of_the_namespace(everything: Any) -> None:
    assert parse(everything).subject == PodSelector(namespace="shop", pods=EVERYTHING)


@pytest.mark.parametrize("nothing", [{}, {"ingress": None}, {"ingress": []}])
def test_no_rule_allows_nothing(nothing: Any) -> None:
    assert parse(nothing).rules == {INGRESS: ()}


@pytest.mark.parametrize("rule", [{}, {"from": None}, {"from": []}, {"ports": None}, {"ports": []}])
def test_an_empty_rule_allows_everything(rule: Any) -> None:
    assert ingress(rule) == ANYTHING


def test_a_blank_rule_allows_everything_with_a_warning() -> None:
    policy = parse({"ingress": [None]})
    assert policy.rules[INGRESS] == (ANYTHING,)
    assert len(policy.warnings) == 1
    assert policy.warnings[0].startswith("spec.ingress[0]: an empty item allows everything")


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ({}, PortMatch(protocol=TCP)),
        (None, PortMatch(protocol=TCP)),
        ({"protocol": "UDP"}, PortMatch(protocol=UDP)),
        ({"port": 80}, PortMatch(protocol=TCP, first=80, last=80)),
        ({"protocol": "SCTP", "port": 1, "endPort": 65535}, PortMatch(protocol=SCTP, first=1, last=65535)),
        ({"port": 80, "endPort": 80}, PortMatch(protocol=TCP, first=80, last=80)),
        ({"protocol": "UDP", "port": "dns"}, PortMatch(protocol=UDP, name="dns")),
    ],
)
def test_ports(item: Any, match: Any) -> None:
    assert port(item) == match


def test_ports_keep_their_order_and_repetitions() -> None:
    rule = ingress({"ports": [{"port": 81}, {"port": 80}, {"port": 81}]})
    assert [match.first for match in rule.ports] == [81, 80, 81]


@pytest.mark.parametrize(
    ("item", "pods"),
    [
        ({"podSelector": {}}, PodSelector(namespace="shop")),
        ({"podSelector": {"matchLabels": {"a": "b"}}}, PodSelector(namespace="shop", pods=selector(a="b"))),
        ({"namespaceSelector": {}}, PodSelector()),
        ({"podSelector": None, "namespaceSelector": {}}, PodSelector()),
        ({"podSelector": {}, "namespaceSelector": {}}, PodSelector()),
        ({"namespaceSelector": {"matchLabels": {"c": "d"}}}, PodSelector(namespaces=selector(c="d"))),
        (
            {"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {"matchLabels": {"c": "d"}}},
            PodSelector(namespaces=selector(c="d"), pods=selector(a="b")),
        ),
    ],
)
def test_pod_peers(item: Any, pods: Any) -> None:
    assert peer(item) == PodPeer(pods)


def test_peers_of_both_families_stand_side_by_side() -> None:
    rule = ingress(
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.1.2.0/24"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]}
    )
    assert rule.peers == (
        CidrPeer(Cidr.parse("10.0.0.0/8"), (Cidr.parse("10.1.0.0/16"), Cidr.parse("10.1.2.0/24"))),
        CidrPeer(Cidr.parse("fd00::/8")),
    )


def test_equal_selectors_have_one_form() -> None:
    one = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["y", "x", "y"]}]}
    two = {
        "matchExpressions": [
            {"key": "c", "operator": "NotIn", "values": ["x", "y"]},
            {"key": "a", "operator": "In", "values": ["1"]},
            {"key": "a", "operator": "In", "values": ["1"]},
        ],
        "matchLabels": {"a": "1", "b": "2"},
    }
    assert parse({"podSelector": one}) == parse({"podSelector": two})


@pytest.mark.parametrize(
    ("cidr", "meaning", "words"),
    [
        ("10.0.0.5/8", "10.0.0.0/8", "bits beyond"),
        ("010.000.00.0/8", "10.0.0.0/8", "leading zeros"),
        ("10.0.0.0/08", "10.0.0.0/8", "leading zeros"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8", "IPv4-mapped"),
        ("fd00::1/64", "fd00::/64", "bits beyond"),
        ("::10.0.0.0/104", "::a00:0/104", None),
        ("00fd::/16", "fd::/16", None),
        ("FD00:0::/08", "fd00::/8", "leading zeros"),
        ("::ffff:0:0/95", "::fffe:0:0/95", "bits beyond"),
    ],
)
def test_old_ways_to_write_a_prefix_are_read_with_a_warning(cidr: str, meaning: str, words: str) -> None:
    policy = parse({"egress": [{"to": [{"ipBlock": {"cidr": cidr}}]}]})
    assert policy.rules[EGRESS][0].peers == (CidrPeer(Cidr.parse(meaning)),)
    assert [words in warning for warning in policy.warnings] == ([True] if words else [])


def test_an_except_written_as_mapped_address_cuts_from_the_ipv4_block() -> None:
    assert peer({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["::ffff:10.1.0.0/112"]}}).excepts == (Cidr.parse("10.1.0.0/16"),)


def test_unknown_fields_are_warnings_with_the_nearest_name() -> None:
    policy = parse({"podselector": {}, "ingress": [{"form": [], "ports": [{"prot": 1, "zzz": 2}]}]}, lables={})
    assert list(policy.warnings) == [
        "metadata: unknown field 'lables' has no effect; did you mean labels?",
        "spec: unknown field 'podselector' has no effect; did you mean podSelector?",
        "spec.ingress[0]: unknown field 'form' has no effect; did you mean from?",
        "spec.ingress[0].ports[0]: unknown field 'prot' has no effect; did you mean port?",
        "spec.ingress[0].ports[0]: unknown field 'zzz' has no effect; known are protocol, port, endPort",
    ]


@pytest.mark.parametrize(("types", "other"), [("Ingress", "egress"), ("Egress", "ingress")])
def test_rules_outside_the_policy_types_are_a_warning(types: str, other: str) -> None:
    policy = parse({"policyTypes": [types], other: [{}]})
    assert len(policy.warnings) == 1
    assert policy.warnings[0].startswith(f"spec.{other}: has no effect, since spec.policyTypes lacks ")


def test_status_of_old_servers_is_no_warning() -> None:
    raw = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"}, "status": {}}
    assert parse_network_policy(raw).warnings == ()


def test_the_plugin_announces_the_dialect() -> None:
    assert list(NetworkPolicyDialect().polyplane_dialects()) == [NETWORK_POLICY]
    assert NETWORK_POLICY.namespaced
