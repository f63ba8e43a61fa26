"""What must hold on every API server: the test kit's own, and a real one where there is one. Everything goes by way of HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import Following, pod, policy
from real_server import WHY_NOT, Writer, real_kubeconfig

from polyplane.cluster.model import RemoveObject
from polyplane.cluster.sources.kubernetes.connection import ApiStatus
from polyplane_conformance.apiserver import ApiServer

#: A server that was just started has signed its certificate itself.
pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    with real_kubeconfig(tmp_path_factory.mktemp("real")) as kubeconfig:
        yield kubeconfig


@pytest.fixture(params=["kit", "real"])
def writer(request: pytest.FixtureRequest, real: Path | None, tmp_path: Path) -> Iterator[Writer]:
    if request.param == "real":
        if real is None:
            pytest.skip(WHY_NOT)
        yield Writer(real)
        return
    with ApiServer() as server:
        yield Writer(server.kubeconfig(tmp_path / "kubeconfig"))


@pytest.fixture
def shop(writer: Writer) -> Iterator[Writer]:
    writer.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    writer.put(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "node-1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        }
    )
    yield writer
    for kind, names in (("Pod", ("first", "second", "third")), ("NetworkPolicy", ("deny",))):
        for name in names:
            with contextlib.suppress(ApiStatus):  # the test may have removed it
                writer.remove(kind, "shop", name)


@pytest.mark.parametrize("watch_list", [True, False], ids=["streamed list", "pages"])
def test_follows(shop: Writer, watch_list: bool) -> None:
    shop.put(pod("first", address="10.0.0.1"))
    shop.put(pod("second", address="10.0.0.2"))
    shop.put(policy("deny"))
    following = Following(shop.kubeconfig, watch_list=watch_list, page_size=1)
    try:
        following.until(lambda: following.syncs, seconds=30)
        assert {"first", "second"} <= following.names("Pod")
        assert "deny" in following.names("NetworkPolicy")
        assert following.objects["Pod", "shop", "first"]["status"]["podIP"] == "10.0.0.1"
        assert following.objects["Node", "", "node-1"]["status"]["addresses"][0]["address"] == "192.0.2.1"
        assert following.objects["Namespace", "", "shop"]
        shop.put(pod("third", address="10.0.0.3"))
        shop.put(pod("second", address="10.0.0.2", tier="web"))
        shop.put(pod("first", address="10.0.0.1", phase="Succeeded"))
        shop.remove("NetworkPolicy", "shop", "deny")
        following.until(lambda: "third" in following.names("Pod") and "first" not in following.names("Pod"))
        following.until(lambda: following.objects["Pod", "shop", "second"]["metadata"]["labels"].get("tier") == "web")
        following.until(lambda: "deny" not in following.names("NetworkPolicy"))
        shop.remove("Pod", "shop", "third")
        following.until(lambda: "third" not in following.names("Pod"))
        assert not following.problems
        assert following.syncs == 1
    finally:
        following.stop()


def test_comes_back_to_what_it_left(shop: Writer) -> None:
    shop.put(pod("first", address="10.0.0.1"))
    following = Following(shop.kubeconfig)
    try:
        following.until(lambda: following.syncs, seconds=30)
        before = dict(following.source.versions)
        assert all(before.values())
        following.source._connection.close()  # every watch ends
        following.source._connection.reopen()
        shop.put(pod("second", address="10.0.0.2"))
        following.until(lambda: "second" in following.names("Pod"))
        assert not [event for event in following.events if isinstance(event, RemoveObject)]
    finally:
        following.stop()


def test_refusals_are_told_apart(shop: Writer) -> None:
    with pytest.raises(ApiStatus) as missing:
        shop.connection.request("GET", "/apis/example.org/v1/widgets")
    assert missing.value.code == 404
    with pytest.raises(ApiStatus) as malformed:
        shop.connection.request("GET", "/api/v1/pods", query={"resourceVersion": "yesterday"})
    assert malformed.value.code in {400, 500}
    with pytest.raises(ApiStatus) as incomplete:
        shop.connection.request("GET", "/api/v1/pods", query={"watch": "true", "sendInitialEvents": "true"})
    assert incomplete.value.code == 422
