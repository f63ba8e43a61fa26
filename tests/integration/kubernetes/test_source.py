"""The kubernetes source follows whatever a healthy server does."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from following import Following, pod, policy

from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY
from polyplane.cluster.model import Dialect, PutObject
from polyplane.cluster.store import Store
from polyplane_conformance.apiserver import ApiServer, Kind

Follow = Callable[..., Following]
WIDGETS = Kind("example.org/v1", "WidgetPolicy", "widgetpolicies")
WIDGET = Dialect(api_version="example.org/v1", kind="WidgetPolicy", namespaced=True, tiers=(), parse=NETWORK_POLICY.parse)


@pytest.mark.parametrize("watch_list", [True, False])
def test_lists_then_follows(server: ApiServer, follow: Follow, watch_list: bool) -> None:
    for number in range(7):
        server.cluster.put(pod(f"p{number}"))
    server.cluster.put(policy("deny"))
    following = follow(watch_list=watch_list, page_size=3)
    following.until(lambda: following.syncs)
    assert following.names("Pod") == {f"p{number}" for number in range(7)}
    assert following.names("NetworkPolicy") == {"deny"}
    assert following.names("Namespace") == {"shop"}
    server.cluster.put(pod("p1", tier="web"))
    server.cluster.put(pod("late"))
    server.cluster.remove("Pod", "shop", "p2")
    server.cluster.remove("NetworkPolicy", "shop", "deny")
    following.until(lambda: "late" in following.names("Pod") and not following.names("NetworkPolicy"))
    following.until(lambda: "p2" not in following.names("Pod"))
    assert following.objects["Pod", "shop", "p1"]["metadata"]["labels"]["tier"] == "web"
    assert following.syncs == 1
    paged = [request for request in server.requests if "pods" in request and "limit=3" in request]
    assert len(paged) == (0 if watch_list else 3)


def test_gives_the_store_all_it_needs(server: ApiServer, follow: Follow) -> None:
    raw = pod("web", address="10.0.0.9")
    raw["metadata"]["annotations"] = {"polyplane.dev/host-interface": "veth1"}
    raw["spec"]["initContainers"] = [{"name": "side", "ports": [{"containerPort": 9, "protocol": "UDP", "name": "dns"}]}]
    server.cluster.put(raw)
    server.cluster.put(policy("deny"))
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.1.2.0/24", "podCIDRs": ["10.1.2.0/24", "fd00:1::/64"], "taints": []},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.9.9.9"}]},
    }
    server.cluster.put(node)
    following = follow()
    following.until(lambda: following.syncs)
    direct, through = Store([NETWORK_POLICY]), Store([NETWORK_POLICY])
    for event in following.events:
        through.apply(event)
        if isinstance(event, PutObject):
            kind = next(kind for kind in server.cluster.kinds if kind.kind == event.key.kind)
            direct.apply(PutObject(key=event.key, raw=server.cluster.get(kind, event.key.namespace, event.key.name).raw))
    assert through.pods == direct.pods
    assert through.pods["shop/web"].interface == "veth1"
    assert [str(prefix) for prefix in through.nodes["node-1"].pod_prefixes] == ["10.1.2.0/24", "fd00:1::/64"]
    assert {port.name for port in through.pods["shop/web"].ports} == {"", "dns"}
    assert (through.nodes, through.namespaces, through.policies) == (direct.nodes, direct.namespaces, direct.policies)
    assert through.nodes
    assert not through.problems
    assert "containers" not in str(
        {key for event in following.events if isinstance(event, PutObject) for key in event.raw.get("status") or ()}
    )


def test_server_leaves_out_finished_pods(server: ApiServer, follow: Follow) -> None:
    server.cluster.put(pod("done", phase="Succeeded"))
    server.cluster.put(pod("runs"))
    following = follow()
    following.until(lambda: following.syncs)
    assert following.names("Pod") == {"runs"}
    server.cluster.put(pod("runs", phase="Failed"))
    following.until(lambda: not following.names("Pod"))


def test_an_odd_object_is_the_stores_business(server: ApiServer, follow: Follow) -> None:
    odd = pod("odd")
    odd["spec"]["containers"] = [{"name": "main", "ports": [{"containerPort": "eighty"}]}]
    server.cluster.put(odd)
    server.cluster.put(pod("fine"))
    following = follow()
    following.until(lambda: following.syncs)
    store = Store([NETWORK_POLICY])
    for event in following.events:
        store.apply(event)
    assert set(store.pods) == {"shop/fine"}
    assert "containerPort" in str(store.problems)


def test_bookmarks_keep_the_version_fresh(server: ApiServer, follow: Follow) -> None:
    following = follow()
    following.until(lambda: following.syncs)
    server.cluster.put(policy("other"))
    server.bookmark()
    following.until(lambda: set(following.source.versions.values()) == {str(server.cluster.revision)})
    assert not following.problems


def test_a_definition_installed_later_and_removed(server: ApiServer, follow: Follow) -> None:
    following = follow(dialects=(NETWORK_POLICY, WIDGET))
    following.until(lambda: following.syncs)
    server.cluster.add_kind(WIDGETS)
    server.cluster.put({**policy("widget"), "apiVersion": "example.org/v1", "kind": "WidgetPolicy"})
    following.until(lambda: following.names("WidgetPolicy") == {"widget"})
    server.cluster.remove_kind(WIDGETS)
    following.until(lambda: not following.names("WidgetPolicy"))
    server.cluster.add_kind(WIDGETS)
    server.cluster.put({**policy("again"), "apiVersion": "example.org/v1", "kind": "WidgetPolicy"})
    following.until(lambda: following.names("WidgetPolicy") == {"again"})
    assert following.syncs == 1


def test_stops_at_once_and_says_nothing_more(server: ApiServer, follow: Follow) -> None:
    following = follow()
    following.until(lambda: following.syncs)
    following.stop()
    said = len(following.events)
    server.cluster.put(pod("late"))
    following.take()
    assert len(following.events) == said
    assert "kubernetes.client.models.v1_pod" not in sys.modules
