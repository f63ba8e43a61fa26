"""Each thing the API server rejects, beside its nearest neighbour that it accepts."""

from __future__ import annotations

from typing import Any

import pytest

from polyplane.cluster.dialects.networkpolicy import parse_network_policy
from polyplane.errors import InvalidObject


def policy(spec: Any, **metadata: Any) -> Any:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop", **metadata},
        "spec": spec,
    }


def ports(*items: Any) -> Any:
    return policy({"ingress": [{"ports": list(items)}]})


def peers(*items: Any) -> Any:
    return policy({"egress": [{"to": list(items)}]})


def block(cidr: str, *excepts: Any) -> Any:
    return peers({"ipBlock": {"cidr": cidr, "except": list(excepts)}})


def expression(**members: Any) -> Any:
    return policy({"podSelector": {"matchExpressions": [{"key": "app", **members}]}})


PORT = "spec.ingress[0].ports[0]"
PEER = "spec.egress[0].to[0]"
EXPRESSION = "spec.podSelector.matchExpressions[0]"

# number of the rule, rejected object, field, words of the message, accepted neighbour
CASES = [
    ("1 name", policy({}, name="Web"), "metadata.name", "lower-case", policy({}, name="web.v2")),
    ("1 name too long", policy({}, name="a" * 254), "metadata.name", "253", policy({}, name="a" * 253)),
    ("1 name with newline", policy({}, name="web\n"), "metadata.name", "lower-case", policy({}, name="web-0")),
    ("1 no name", policy({}, name=""), "metadata.name", "missing", policy({}, name="0")),
    ("1 namespace", policy({}, namespace="a.b"), "metadata.namespace", "namespace", policy({}, namespace="a-b")),
    ("1 label key", policy({}, labels={"a b": ""}), "metadata.labels", "label key", policy({}, labels={"example.org/a_b": ""})),
    ("1 label value", policy({}, labels={"a": "-x"}), "metadata.labels[a]", "label value", policy({}, labels={"a": "x-Y_z.0"})),
    ("1 label type", policy({}, labels={"a": 5}), "metadata.labels[a]", "quotes", policy({}, labels={"a": "5"})),
    (
        "1 annotation key",
        policy({}, annotations={"/a": ""}),
        "metadata.annotations",
        "annotation key",
        policy({}, annotations={"Up/A": "any\ntext"}),
    ),
    (
        "1 annotations too long",
        policy({}, annotations={"a": "x" * 262144}),
        "metadata.annotations",
        "262144",
        policy({}, annotations={"a": "x" * 262143}),
    ),
    ("1 finalizer", policy({}, finalizers=["a/b/c"]), "metadata.finalizers[0]", "a/b/c", policy({}, finalizers=["example.org/keep"])),
    (
        "1 owner",
        policy({}, ownerReferences=[{"kind": "App", "name": "a", "uid": "1"}]),
        "metadata.ownerReferences[0].apiVersion",
        "missing",
        policy({}, ownerReferences=[{"apiVersion": "v1", "kind": "App", "name": "a", "uid": "1"}]),
    ),
    ("1 generation", policy({}, generation=-1), "metadata.generation", "negative", policy({}, generation=0)),
    ("2 In without values", expression(operator="In"), f"{EXPRESSION}.values", "at least one", expression(operator="In", values=["x"])),
    (
        "2 NotIn without values",
        expression(operator="NotIn", values=[]),
        f"{EXPRESSION}.values",
        "at least one",
        expression(operator="NotIn", values=[""]),
    ),
    (
        "2 Exists with values",
        expression(operator="Exists", values=["x"]),
        f"{EXPRESSION}.values",
        "empty",
        expression(operator="Exists", values=[]),
    ),
    (
        "2 DoesNotExist with values",
        expression(operator="DoesNotExist", values=["x"]),
        f"{EXPRESSION}.values",
        "empty",
        expression(operator="DoesNotExist"),
    ),
    (
        "2 operator",
        expression(operator="in", values=["x"]),
        f"{EXPRESSION}.operator",
        "DoesNotExist",
        expression(operator="In", values=["x"]),
    ),
    ("2 bad key", expression(key="a b", operator="Exists"), f"{EXPRESSION}.key", "label key", expression(key="a.b/c", operator="Exists")),
    (
        "2 bad value",
        expression(operator="In", values=["x", "-"]),
        f"{EXPRESSION}.values[1]",
        "label value",
        expression(operator="In", values=["x", ""]),
    ),
    (
        "2 bad peer",
        peers({"podSelector": {"matchLabels": {"a": "?"}}}),
        f"{PEER}.podSelector.matchLabels[a]",
        "value",
        peers({"podSelector": {}}),
    ),
    (
        "2 bad namespaces",
        peers({"namespaceSelector": {"matchLabels": {"a/b/c": "x"}}}),
        f"{PEER}.namespaceSelector.matchLabels",
        "key",
        peers({"namespaceSelector": {"matchLabels": {"b/c": "x"}}}),
    ),
    ("3 case", ports({"protocol": "tcp"}), f"{PORT}.protocol", "upper case", ports({"protocol": "TCP"})),
    ("3 empty", ports({"protocol": ""}), f"{PORT}.protocol", "TCP, UDP or SCTP", ports({"protocol": None})),
    ("3 other", ports({"protocol": "ICMP"}), f"{PORT}.protocol", "TCP, UDP or SCTP", ports({"protocol": "SCTP"})),
    ("4 zero", ports({"port": 0}), f"{PORT}.port", "between 1 and 65535", ports({"port": 1})),
    ("4 too high", ports({"port": 65536}), f"{PORT}.port", "between 1 and 65535", ports({"port": 65535})),
    ("5 digits", ports({"port": "80"}), f"{PORT}.port", "without quotes", ports({"port": 80})),
    ("5 long", ports({"port": "a" * 16}), f"{PORT}.port", "15", ports({"port": "a" * 15})),
    ("5 case", ports({"port": "HTTP"}), f"{PORT}.port", "lower-case", ports({"port": "http"})),
    ("5 double hyphen", ports({"port": "a--b"}), f"{PORT}.port", "--", ports({"port": "a-b-c"})),
    ("5 hyphen first", ports({"port": "-a"}), f"{PORT}.port", "starting", ports({"port": "8-a"})),
    ("5 empty", ports({"port": ""}), f"{PORT}.port", "port name", ports({"port": None})),
    ("6 endPort alone", ports({"endPort": 90}), f"{PORT}.endPort", "without port", ports({"port": 80, "endPort": 90})),
    ("7 endPort after name", ports({"port": "http", "endPort": 90}), f"{PORT}.endPort", "name", ports({"port": "http"})),
    ("8 endPort less", ports({"port": 80, "endPort": 79}), f"{PORT}.endPort", "less", ports({"port": 80, "endPort": 80})),
    ("9 endPort too high", ports({"port": 80, "endPort": 65536}), f"{PORT}.endPort", "not a port", ports({"port": 80, "endPort": 65535})),
    ("9 endPort zero", ports({"port": 1, "endPort": 0}), f"{PORT}.endPort", "less", ports({"port": 1, "endPort": 1})),
    ("10 no peer", peers({}), PEER, "must specify a peer", peers({"podSelector": {}})),
    ("10 only nulls", peers({"podSelector": None}), PEER, "must specify a peer", peers({"podSelector": None, "namespaceSelector": {}})),
    ("10 null peer", peers(None), PEER, "must specify a peer", policy({"egress": [{"to": None}]})),
    (
        "11 both",
        peers({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
        f"{PEER}.ipBlock",
        "beside",
        peers({"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": {}}),
    ),
    ("12 no cidr", peers({"ipBlock": {}}), f"{PEER}.ipBlock.cidr", "required", block("0.0.0.0/0")),
    ("13 an address", block("10.0.0.1"), f"{PEER}.ipBlock.cidr", "/32", block("10.0.0.1/32")),
    ("13 length", block("10.0.0.0/33"), f"{PEER}.ipBlock.cidr", "IP prefix", block("10.0.0.0/32")),
    ("13 length of IPv6", block("fd00::/129"), f"{PEER}.ipBlock.cidr", "IP prefix", block("fd00::/128")),
    ("13 octet", block("10.0.0.256/32"), f"{PEER}.ipBlock.cidr", "IP prefix", block("10.0.0.255/32")),
    ("13 short", block("10.0.0/8"), f"{PEER}.ipBlock.cidr", "IP prefix", block("10.0.0.0/8")),
    ("13 zone", block("fe80::1%eth0/64"), f"{PEER}.ipBlock.cidr", "IP prefix", block("fe80::1/64")),
    ("13 blank", block(" 10.0.0.0/8"), f"{PEER}.ipBlock.cidr", "IP prefix", block("010.0.0.0/08")),
    ("13 mask", block("10.0.0.0/255.0.0.0"), f"{PEER}.ipBlock.cidr", "IP prefix", block("10.0.0.0/8")),
    ("13 except", block("10.0.0.0/8", "x"), f"{PEER}.ipBlock.except[0]", "IP prefix", block("10.0.0.0/8", "10.1.0.5/16")),
    ("14 outside", block("10.0.0.0/8", "11.0.0.0/16"), f"{PEER}.ipBlock.except[0]", "strict subset", block("10.0.0.0/8", "10.0.0.0/9")),
    (
        "14 equal",
        block("10.0.0.0/8", "10.0.0.0/8"),
        f"{PEER}.ipBlock.except[0]",
        "strict subset",
        block("10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9"),
    ),
    (
        "14 other family",
        block("0.0.0.0/0", "fd00::/8"),
        f"{PEER}.ipBlock.except[0]",
        "strict subset",
        block("::/0", "fd00::/8", "fd00::/8"),
    ),
    ("15 three", policy({"policyTypes": ["Ingress"] * 3}), "spec.policyTypes", "at most two", policy({"policyTypes": ["Ingress"] * 2})),
    ("16 other", policy({"policyTypes": ["ingress"]}), "spec.policyTypes[0]", "Ingress or Egress", policy({"policyTypes": ["Ingress"]})),
]


@pytest.mark.parametrize(("rejected", "field", "words", "accepted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_rejects_what_the_api_server_rejects(rejected: Any, field: str, words: str, accepted: Any) -> None:
    with pytest.raises(InvalidObject) as raised:
        parse_network_policy(rejected)
    assert (raised.value.kind, raised.value.field) == ("NetworkPolicy", field)
    assert words in raised.value.problem
    assert "; " in raised.value.problem or "annotations" in field, "every message carries its remedy"
    parse_network_policy(accepted)


def test_every_rule_has_a_case() -> None:
    assert {int(case[0].split()[0]) for case in CASES} == set(range(1, 17))


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("object", []),
        ("object", "x"),
        ("object", {5: 6}),
        ("kind", {**policy({}), "kind": "Pod"}),
        ("apiVersion", {**policy({}), "apiVersion": "extensions/v1beta1"}),
        ("metadata", {**policy({}), "metadata": None}),
        ("metadata", {**policy({}), "metadata": "web"}),
        ("metadata.name", policy({}, name=5)),
        ("metadata.uid", policy({}, uid=5)),
        ("metadata.labels", policy({}, labels=["a"])),
        ("spec", policy("x")),
        ("spec.podSelector", policy({"podSelector": []})),
        ("spec.podSelector.matchLabels", policy({"podSelector": {"matchLabels": "x"}})),
        ("spec.podSelector.matchLabels", policy({"podSelector": {"matchLabels": {1: "x"}}})),
        ("spec.podSelector.matchLabels[a]", policy({"podSelector": {"matchLabels": {"a": True}}})),
        ("spec.podSelector.matchExpressions[0].values", expression(operator="In", values="x")),
        ("spec.policyTypes", policy({"policyTypes": "Ingress"})),
        ("spec.ingress", policy({"ingress": {}})),
        ("spec.ingress[0]", policy({"ingress": ["x"]})),
        ("spec.ingress[0].from", policy({"ingress": [{"from": {}}]})),
        ("spec.ingress[0].ports", policy({"ingress": [{"ports": 80}]})),
        (PORT, ports(80)),
        (f"{PORT}.port", ports({"port": True})),
        (f"{PORT}.port", ports({"port": 80.0})),
        (f"{PORT}.port", ports({"port": [80]})),
        (f"{PORT}.endPort", ports({"port": 80, "endPort": "90"})),
        (f"{PORT}.endPort", ports({"port": 80, "endPort": 10**5000})),
        (f"{PORT}.port", ports({"port": [10**5000]})),
        (f"{PORT}.protocol", ports({"protocol": 6})),
        (PEER, peers("x")),
        (f"{PEER}.ipBlock", peers({"ipBlock": "10.0.0.0/8"})),
        (f"{PEER}.ipBlock.cidr", peers({"ipBlock": {"cidr": 10}})),
        (f"{PEER}.ipBlock.except", peers({"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}})),
    ],
)
def test_rejects_wrong_types_by_field(field: str, raw: Any) -> None:
    with pytest.raises(InvalidObject) as raised:
        parse_network_policy(raw)
    assert raised.value.field == field
    assert "; " in raised.value.problem


def test_the_error_names_the_object() -> None:
    with pytest.raises(InvalidObject) as raised:
        parse_network_policy(ports({"port": 80, "endPort": 79}))
    assert str(raised.value).startswith("NetworkPolicy shop/web: spec.ingress[0].ports[0].endPort: 79 is less than port 80; ")
