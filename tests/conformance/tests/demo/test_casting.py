from __future__ import annotations

from typing import Any

import pytest

from polyplane.cluster.model import ObjectKey, PutObject
from polyplane.cluster.store import Store
from polyplane.errors import PolyplaneError
from polyplane.plugins import dialects
from polyplane_conformance.casting import Casting, cast_pods
from polyplane_conformance.sandbox import Port


def put(kind: str, name: str, namespace: str = "", **parts: Any) -> PutObject:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return PutObject(key=ObjectKey("v1", kind, namespace, name), raw={"apiVersion": "v1", "kind": kind, "metadata": metadata, **parts})


def cast(*events: PutObject) -> tuple[Casting, Store]:
    casting = cast_pods(list(events))
    store = Store(dialects())
    for event in casting.events:
        store.apply(event)
    casting.settle(store.pods.values(), store.nodes.values())
    return casting, store


def containers(*ports: dict[str, object]) -> list[dict[str, object]]:
    return [{"name": "main", "image": "none", "ports": list(ports)}]


def test_pods_get_a_node_addresses_and_an_interface() -> None:
    casting, store = cast(put("Pod", "a", "x", spec={"containers": containers({"containerPort": 80, "name": "web"})}))
    (pod,) = casting.topology.pods
    assert (pod.node, len(pod.addresses), pod.ports) == ("node-1", 2, (Port(6, 80, "web"),))
    assert store.pods["x/a"].interface == "pp-x_a"
    assert [node.name for node in casting.topology.nodes] == ["node-1"]
    assert store.nodes["node-1"].addresses


def test_what_the_manifests_say_stays() -> None:
    status = {"phase": "Running", "podIPs": [{"ip": "10.9.0.1"}]}
    metadata = {"name": "a", "namespace": "x", "annotations": {"polyplane.dev/host-interface": "cali1"}}
    given = put("Pod", "a", "x", spec={"nodeName": "far", "containers": containers()}, status=status)
    given = PutObject(key=given.key, raw={**given.raw, "metadata": metadata})
    node = put("Node", "far", status={"addresses": [{"type": "InternalIP", "address": "10.8.0.1"}]})
    casting, _ = cast(given, node)
    (pod,) = casting.topology.pods
    assert (pod.addresses, pod.host_interface, pod.node) == (("10.9.0.1",), "cali1", "far")
    assert casting.topology.node.addresses[0] == "10.8.0.1"


def test_no_address_is_given_twice() -> None:
    taken = {"phase": "Running", "podIPs": [{"ip": "10.65.0.1"}, {"ip": "fd65::2"}]}
    events = [put("Pod", name, "x", spec={"containers": containers()}) for name in "abcd"]
    casting, _ = cast(*events, put("Pod", "e", "x", spec={"containers": containers()}, status=taken))
    assert len({address for pod in casting.topology.pods for address in pod.addresses}) == 10


def test_host_network_pods_are_their_node() -> None:
    casting, store = cast(put("Pod", "a", "x", spec={"hostNetwork": True, "containers": containers()}))
    (pod,) = casting.topology.pods
    assert pod.host_network
    assert casting.topology.addresses_of("x/a") == casting.topology.node.addresses
    assert store.pods["x/a"].interface is None


def test_broken_objects_are_left_to_the_store() -> None:
    casting, store = cast(put("Pod", "a", "x", spec={"containers": containers()}), put("Pod", "b", "x", spec="none"))
    assert [pod.id for pod in casting.topology.pods] == ["x/a"]
    assert len(store.problems) == 1


def test_a_demo_needs_pods() -> None:
    with pytest.raises(PolyplaneError, match="no pod that runs"):
        cast(put("Namespace", "x"))
