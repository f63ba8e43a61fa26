"""Pods, namespaces and nodes from raw objects."""

from __future__ import annotations

from typing import Any

import pytest

from polyplane.cluster.decode import INTERFACE_ANNOTATION, decode_namespace, decode_node, decode_pod, implied_namespace
from polyplane.cluster.model import ContainerPort, Namespace, Node, Pod
from polyplane.errors import InvalidObject
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import SCTP, TCP, UDP


def pod(spec: Any = None, status: Any = None, **metadata: Any) -> Any:
    return decode_pod(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop", **metadata}, "spec": spec, "status": status}
    )


def addresses(*texts: str) -> Any:
    return tuple(Cidr.parse(text) for text in texts)


def test_a_whole_pod() -> None:
    raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-0",
            "namespace": "shop",
            "labels": {"app": "web"},
            "annotations": {INTERFACE_ANNOTATION: "veth1a2b", "other": "x"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "nodeName": "node1",
            "restartPolicy": "Always",
            "initContainers": [{"name": "proxy", "ports": [{"name": "admin", "containerPort": 15000}]}],
            "containers": [
                {
                    "name": "web",
                    "image": "x",
                    "ports": [{"name": "http", "containerPort": 8080, "hostPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                },
                {"name": "log"},
            ],
        },
        "status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00:1::5"}], "hostIP": "10.0.0.1"},
    }
    assert decode_pod(raw) == Pod(
        namespace="shop",
        name="web-0",
        labels={"app": "web"},
        node="node1",
        addresses=addresses("10.1.0.5", "fd00:1::5"),
        ports=(ContainerPort("", UDP, 53), ContainerPort("admin", TCP, 15000), ContainerPort("http", TCP, 8080)),
        interface="veth1a2b",
    )


def test_the_least_pod() -> None:
    assert decode_pod({"metadata": {"name": "a"}}) == Pod(namespace="default", name="a", labels={}, node="", addresses=())


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_gives_its_addresses_back(phase: str) -> None:
    assert pod(status={"phase": phase, "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}]}).addresses == ()


@pytest.mark.parametrize("phase", ["Running", "Pending", "Unknown", None, ""])
def test_a_pod_that_is_only_being_deleted_keeps_them(phase: str) -> None:
    status = {"phase": phase, "podIPs": [{"ip": "10.1.0.5"}]}
    assert pod(status=status, deletionTimestamp="2026-01-01T00:00:00Z").addresses == addresses("10.1.0.5")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"podIP": "10.1.0.5"}, ["10.1.0.5"]),
        ({"podIP": "10.1.0.5", "podIPs": []}, ["10.1.0.5"]),
        ({"podIP": "10.1.0.5", "podIPs": None}, ["10.1.0.5"]),
        ({"podIPs": [{"ip": "fd00::5"}, {"ip": "10.1.0.5"}]}, ["10.1.0.5", "fd00::5"]),
        ({"podIPs": [{"ip": "010.001.0.5"}, {"ip": "::ffff:10.1.0.5"}]}, ["10.1.0.5"]),
        ({"podIP": ""}, []),
        ({}, []),
    ],
)
def test_addresses_in_canonical_order(status: Any, expected: Any) -> None:
    assert pod(status=status).addresses == addresses(*expected)


def test_host_network() -> None:
    assert pod({"hostNetwork": True}).host_network
    assert not pod({"hostNetwork": None}).host_network


def test_one_port_declared_twice_is_one() -> None:
    ports = [{"name": "x", "containerPort": 1, "protocol": "SCTP"}]
    assert pod({"containers": [{"ports": ports}, {"ports": ports}]}).ports == (ContainerPort("x", SCTP, 1),)


def test_one_name_may_mean_several_ports() -> None:
    spec = {"containers": [{"ports": [{"name": "x", "containerPort": 2}]}, {"ports": [{"name": "x", "containerPort": 1}]}]}
    assert pod(spec).ports == (ContainerPort("x", TCP, 1), ContainerPort("x", TCP, 2))


@pytest.mark.parametrize(
    ("field", "spec", "status", "metadata"),
    [
        ("metadata.name", None, None, {"name": "A"}),
        ("metadata.name", None, None, {"name": None}),
        ("metadata.name", None, None, {"name": 5}),
        ("metadata.name", None, None, {"name": "a/b"}),
        ("metadata.namespace", None, None, {"namespace": "a.b"}),
        ("metadata.labels", None, None, {"labels": {"a b": "x"}}),
        ("metadata.labels[a]", None, None, {"labels": {"a": "?"}}),
        ("metadata.labels[...]", None, None, {"labels": {"a": 5}}),
        ("metadata.labels", None, None, {"labels": ["a"]}),
        (f"metadata.annotations[{INTERFACE_ANNOTATION}]", None, None, {"annotations": {INTERFACE_ANNOTATION: "a/b"}}),
        (f"metadata.annotations[{INTERFACE_ANNOTATION}]", None, None, {"annotations": {INTERFACE_ANNOTATION: "a" * 16}}),
        ("spec", "x", None, {}),
        ("spec.nodeName", {"nodeName": 5}, None, {}),
        ("spec.hostNetwork", {"hostNetwork": "true"}, None, {}),
        ("spec.containers", {"containers": {}}, None, {}),
        ("spec.containers[0].ports[0].containerPort", {"containers": [{"ports": [{"containerPort": 0}]}]}, None, {}),
        ("spec.containers[0].ports[0].containerPort", {"containers": [{"ports": [None]}]}, None, {}),
        ("spec.containers[0].ports[0].containerPort", {"containers": [{"ports": [{"containerPort": "80"}]}]}, None, {}),
        (
            "spec.initContainers[0].ports[1].protocol",
            {"initContainers": [{"ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "tcp"}]}]},
            None,
            {},
        ),
        ("spec.containers[0].ports[0].name", {"containers": [{"ports": [{"containerPort": 1, "name": "80"}]}]}, None, {}),
        ("status.podIPs[1].ip", None, {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1/32"}]}, {}),
        ("status.podIPs[0].ip", None, {"podIPs": [{}]}, {}),
        ("status.podIP", None, {"podIP": "fe80::1%eth0"}, {}),
    ],
)
def test_a_bad_pod_is_refused_by_field(field: str, spec: Any, status: Any, metadata: Any) -> None:
    with pytest.raises(InvalidObject) as raised:
        pod(spec, status, **metadata)
    assert (raised.value.kind, raised.value.field) == ("Pod", field)
    assert "; " in raised.value.problem


def test_a_namespace_always_carries_its_name() -> None:
    name = "kubernetes.io/metadata.name"
    assert decode_namespace({"metadata": {"name": "shop", "labels": {"team": "a"}}}) == Namespace(
        name="shop", labels={"team": "a", name: "shop"}
    )
    assert decode_namespace({"metadata": {"name": "shop", "labels": {name: "bank"}}}) == implied_namespace("shop")
    assert implied_namespace("shop") == Namespace(name="shop", labels={name: "shop"})


def test_a_namespace_is_a_dns_label() -> None:
    with pytest.raises(InvalidObject, match=r"Namespace a\.b: metadata\.name"):
        decode_namespace({"metadata": {"name": "a.b"}})


def test_a_node_has_its_internal_and_external_addresses() -> None:
    status = {
        "addresses": [
            {"type": "Hostname", "address": "node1"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "ExternalIP", "address": "192.0.2.1"},
            {"type": "ExternalDNS", "address": "node1.example.org"},
        ]
    }
    node = decode_node({"metadata": {"name": "node1.example.org", "labels": {"zone": "a"}}, "status": status})
    assert node == Node(name="node1.example.org", labels={"zone": "a"}, addresses=addresses("10.0.0.1", "192.0.2.1", "fd00::1"))
    assert decode_node({"metadata": {"name": "n"}}) == Node(name="n")


def test_a_nodes_bad_address_is_refused_by_field() -> None:
    with pytest.raises(InvalidObject) as raised:
        decode_node({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "node1"}]}})
    assert raised.value.field == "status.addresses[0].address"


@pytest.mark.parametrize(
    ("spec", "prefixes"),
    [
        ({"podCIDR": "10.1.2.0/24", "podCIDRs": ["10.1.2.0/24", "fd00:1::/64"]}, ["10.1.2.0/24", "fd00:1::/64"]),
        ({"podCIDR": "10.1.2.0/24"}, ["10.1.2.0/24"]),
        ({"podCIDR": None, "podCIDRs": None}, []),
        ({}, []),
    ],
)
def test_a_node_has_the_prefixes_of_its_pods(spec: dict[str, object], prefixes: list[str]) -> None:
    assert [str(one) for one in decode_node({"metadata": {"name": "n"}, "spec": spec}).pod_prefixes] == prefixes


def test_a_prefix_that_is_none() -> None:
    with pytest.raises(InvalidObject, match=r"podCIDRs\[1\]: '10.1.2.3' is not a prefix"):
        decode_node({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.2.0/24", "10.1.2.3"]}})
