"""Probes and metrics over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from polyplane.errors import ConfigError
from polyplane.serve import Server, parse_listen


def get(server: Server, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{server.port}{path}", timeout=5) as answer:  # our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_answers_probes_and_scrapes() -> None:
    wrong: list[str | None] = ["the source is not in sync"]
    with Server("127.0.0.1:0", alive=lambda: None, ready=lambda: wrong[0]) as server:
        assert get(server, "/healthz") == (200, "ok\n")
        assert get(server, "/readyz?verbose") == (503, "the source is not in sync\n")
        wrong[0] = None
        assert get(server, "/readyz") == (200, "ok\n")
        code, text = get(server, "/metrics")
        assert code == 200
        assert "process_resident_memory_bytes" in text
        assert get(server, "/secrets")[0] == 404


def test_all_addresses() -> None:
    with Server(":0", alive=lambda: None, ready=lambda: None) as server:
        assert get(server, "/healthz")[0] == 200


def test_an_address_in_use() -> None:
    with (
        Server("127.0.0.1:0", alive=lambda: None, ready=lambda: None) as first,
        pytest.raises(ConfigError, match="in use; choose another"),
        Server(f"127.0.0.1:{first.port}", alive=lambda: None, ready=lambda: None),
    ):
        pass


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:1", ("127.0.0.1", 1)), (":9469", ("", 9469)), ("[::1]:80", ("::1", 80))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["9469", "host", "::1:80", "a:b", "1.2.3.4:99999"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="write one like"):
        parse_listen(text)
