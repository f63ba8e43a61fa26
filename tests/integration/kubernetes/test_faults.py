"""The kubernetes source and a server that misbehaves: nothing is lost, nothing stays that is gone, everything ends well."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from following import Following, pod, policy

from polyplane.cluster.model import InSync, RemoveObject
from polyplane_conformance.apiserver import ApiServer
from polyplane_conformance.apiserver.faults import WatchList

Follow = Callable[..., Following]


def in_sync(following: Following) -> Following:
    following.until(lambda: following.syncs)
    return following


def requests(server: ApiServer, *words: str) -> int:
    return sum(all(word in request for word in words) for request in server.requests)


# --- streamed lists that the server cannot do


@pytest.mark.parametrize("way", [WatchList.UNKNOWN, WatchList.OLD_ETCD, WatchList.ENDLESS])
def test_falls_back_to_lists(server: ApiServer, follow: Follow, way: WatchList) -> None:
    server.faults.watch_list = way
    server.cluster.put(pod("web"))
    following = in_sync(follow(silence=0.5))
    assert following.names("Pod") == {"web"}
    server.cluster.put(pod("late"))
    following.until(lambda: "late" in following.names("Pod"))
    assert requests(server, "/pods?", "sendInitialEvents") == 1
    assert requests(server, "/pods?", "limit=500") >= 1


# --- versions that are gone


def test_watch_told_that_its_version_is_gone(server: ApiServer, follow: Follow) -> None:
    server.cluster.put(pod("stays"))
    server.cluster.put(pod("goes"))
    following = in_sync(follow())
    server.stop()
    server.cluster.remove("Pod", "shop", "goes")
    server.cluster.put(pod("comes"))
    server.cluster.compact()
    server.start()
    following.until(lambda: following.names("Pod") == {"stays", "comes"})
    assert [event.key.name for event in following.events if isinstance(event, RemoveObject)] == ["goes"]
    assert following.syncs == 1


def test_gone_as_a_status(server: ApiServer, follow: Follow) -> None:
    following = in_sync(follow())
    server.faults.fail(410, path="/pods", watches=True)
    server.disconnect()
    server.cluster.put(pod("web"))
    following.until(lambda: following.names("Pod") == {"web"})


def test_a_list_in_pages_that_becomes_too_old(server: ApiServer, follow: Follow) -> None:
    server.faults.watch_list = WatchList.UNKNOWN
    for number in range(6):
        server.cluster.put(pod(f"p{number}"))
    snapshot = server.cluster.snapshot
    calls = itertools.count()

    def aged(kind: object, revision: int | None = None) -> object:
        if revision is not None and next(calls) == 0:
            server.cluster.remove("Pod", "shop", "p0")  # on a page that has been read
            server.cluster.compact()
        return snapshot(kind, revision)  # type: ignore[arg-type]

    server.cluster.snapshot = aged  # type: ignore[method-assign,assignment]
    following = in_sync(follow(page_size=2))
    # Before the silence of the watch would lead to another list.
    following.until(lambda: following.names("Pod") == {f"p{number}" for number in range(1, 6)}, seconds=2)
    assert requests(server, "/pods", "continue=") >= 1


def test_a_live_watch_survives_compaction(server: ApiServer, follow: Follow) -> None:
    following = in_sync(follow())
    before = requests(server, "/pods")
    server.cluster.compact()
    server.cluster.put(pod("web"))
    following.until(lambda: following.names("Pod") == {"web"})
    assert requests(server, "/pods") == before


def test_a_server_whose_history_went_back(server: ApiServer, follow: Follow) -> None:
    server.cluster.put(pod("lost"))
    following = in_sync(follow(silence=0.4))
    server.stop()
    server.cluster.remove("Pod", "shop", "lost")
    server.cluster.revision -= 500  # restored from a backup
    server.cluster._log.clear()
    server.start()
    following.until(lambda: not following.names("Pod"))
    server.cluster.put(pod("new"))
    following.until(lambda: following.names("Pod") == {"new"})


# --- errors


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_errors_of_the_server(server: ApiServer, follow: Follow, code: int) -> None:
    server.faults.fail(code, times=5)
    server.cluster.put(pod("web"))
    following = in_sync(follow())
    assert following.names("Pod") == {"web"}
    server.faults.fail(code, times=3, path="/pods")
    server.disconnect()
    server.cluster.put(pod("late"))
    following.until(lambda: following.names("Pod") == {"web", "late"})
    following.until(lambda: not following.problems)


@pytest.mark.parametrize("code", [410, 500, 504])
def test_error_events(server: ApiServer, follow: Follow, code: int) -> None:
    following = in_sync(follow())
    server.faults.error_event(code, times=4, path="/pods")
    server.disconnect()
    server.cluster.put(pod("web"))
    following.until(lambda: following.names("Pod") == {"web"})


def test_asks_no_sooner_than_the_server_wants(server: ApiServer, follow: Follow) -> None:
    server.faults.fail(429, path="/pods", retry_after=1)
    started = time.monotonic()
    following = in_sync(follow())
    assert requests(server, "/pods") == 2
    assert not following.problems
    assert time.monotonic() - started >= 1


def test_a_back_off_that_grows(server: ApiServer, follow: Follow) -> None:
    server.faults.fail(503, path="/pods", times=1000)
    following = follow(retry_first=0.2, retry_max=5)
    following.until(lambda: requests(server, "/pods") >= 3, seconds=12)
    assert not following.syncs
    following.until(lambda: following.problems)
    assert "Pod" in next(iter(following.problems))


# --- broken answers


@pytest.mark.parametrize("after", [0, 1, 40, 700])
def test_watches_that_are_cut_off(server: ApiServer, follow: Follow, after: int) -> None:
    server.faults.cut(after, times=3, watches=True, path="/pods")
    for number in range(3):
        server.cluster.put(pod(f"p{number}"))
    following = in_sync(follow())
    server.faults.cut(after, times=2, watches=True, path="/pods")
    server.disconnect()
    server.cluster.put(pod("late"))
    following.until(lambda: len(following.names("Pod")) == 4)


@pytest.mark.parametrize("after", [0, 30, 400])
def test_lists_that_are_cut_off(server: ApiServer, follow: Follow, after: int) -> None:
    server.faults.watch_list = WatchList.UNKNOWN
    server.faults.cut(after, times=2, watches=False, path="/pods")
    server.cluster.put(pod("web"))
    following = in_sync(follow())
    assert following.names("Pod") == {"web"}


def test_slow_answers(server: ApiServer, follow: Follow) -> None:
    server.faults.delay, server.faults.piece = 0.005, 50
    for number in range(10):
        server.cluster.put(pod(f"p{number}"))
    following = in_sync(follow())
    server.cluster.put(policy("deny"))
    following.until(lambda: following.names("NetworkPolicy") == {"deny"})
    assert len(following.names("Pod")) == 10


def test_not_in_sync_before_every_resource_is(server: ApiServer, follow: Follow) -> None:
    server.faults.fail(503, path="/networkpolicies", times=8)
    server.cluster.put(policy("deny"))
    following = in_sync(follow(retry_first=0.1))
    index = next(number for number, event in enumerate(following.events) if isinstance(event, InSync))
    assert any(getattr(event, "key", None) and event.key.kind == "NetworkPolicy" for event in following.events[:index])


def test_a_watch_that_says_nothing(server: ApiServer, follow: Follow) -> None:
    following = in_sync(follow(silence=0.4))
    server.faults.mute = {"pods"}
    server.disconnect()
    following.until(lambda: requests(server, "/pods", "resourceVersion=1") >= 1)
    server.cluster.put(pod("web"))
    server.faults.mute = set()
    following.until(lambda: following.names("Pod") == {"web"})


# --- connections and credentials


def test_a_server_that_restarts(server: ApiServer, follow: Follow) -> None:
    server.cluster.put(pod("web"))
    following = in_sync(follow())
    lists = requests(server, "/pods", "sendInitialEvents")
    for number in range(3):
        server.stop()
        server.cluster.put(pod(f"p{number}"))
        server.start()
        following.until(lambda number=number: f"p{number}" in following.names("Pod"))
    assert requests(server, "/pods", "sendInitialEvents") == lists
    assert not any(isinstance(event, RemoveObject) for event in following.events)


def test_a_server_that_comes_late(server: ApiServer, follow: Follow) -> None:
    server.stop()
    following = follow()
    following.until(lambda: following.problems)
    assert not following.syncs
    server.start()
    in_sync(following)
    following.until(lambda: not following.problems)


def test_a_token_that_expires_and_is_replaced(server: ApiServer, follow: Follow, tmp_path: Path) -> None:
    server.faults.tokens = {"first"}
    following = in_sync(follow(token="first"))
    server.faults.tokens = {"second"}
    server.disconnect()
    server.cluster.put(pod("web"))
    following.until(lambda: any("401" in problem for problem in following.problems.values()))
    assert "credentials" in next(iter(following.problems.values()))
    server.kubeconfig(tmp_path / "kubeconfig", token="second")
    following.until(lambda: following.names("Pod") == {"web"})
    following.until(lambda: not following.problems)


def test_a_resource_that_may_not_be_read(server: ApiServer, follow: Follow) -> None:
    server.faults.forbidden = {"networkpolicies"}
    server.cluster.put(policy("deny"))
    following = follow()
    following.until(lambda: any("403" in problem for problem in following.problems.values()))
    assert "allow the agent to get, list and watch NetworkPolicy" in next(iter(following.problems.values()))
    assert not following.syncs
    server.faults.forbidden = set()
    in_sync(following)
    assert following.names("NetworkPolicy") == {"deny"}


def test_a_proxy_that_knows_nothing_takes_no_policies_away(server: ApiServer, follow: Follow) -> None:
    server.cluster.put(policy("deny"))
    following = in_sync(follow())
    server.faults.fail(404, times=12)
    server.disconnect()
    server.cluster.put(pod("web"))
    following.until(lambda: following.names("Pod") == {"web"})
    assert following.names("NetworkPolicy") == {"deny"}
    assert not any(isinstance(event, RemoveObject) for event in following.events)
