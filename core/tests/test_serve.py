"""Probes and metrics over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request

import pytest

from polyplane.addresses import local_addresses
from polyplane.config import LogLevel
from polyplane.errors import ConfigError
from polyplane.serve import Server, parse_listen


class Agent:
    """What the server asks."""

    def __init__(self) -> None:
        self.wrong: str | None = None
        self.level = LogLevel.INFO

    def alive(self) -> str | None:
        return None

    def ready(self) -> str | None:
        return self.wrong

    def log_level(self) -> LogLevel:
        return self.level

    def set_log_level(self, level: LogLevel) -> None:
        self.level = level


def ask(server: Server, method: str, path: str, body: bytes, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def get(server: Server, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{server.port}{path}", timeout=60) as answer:  # our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_answers_probes_and_scrapes() -> None:
    agent = Agent()
    agent.wrong = "the source is not in sync"
    with Server("127.0.0.1:0", agent) as server:
        assert get(server, "/healthz") == (200, "ok\n")
        assert get(server, "/readyz?verbose") == (503, "the source is not in sync\n")
        agent.wrong = None
        assert get(server, "/readyz") == (200, "ok\n")
        code, text = get(server, "/metrics")
        assert code == 200
        assert "process_resident_memory_bytes" in text
        assert get(server, "/secrets")[0] == 404


def test_all_addresses() -> None:
    with Server(":0", Agent()) as server:
        assert get(server, "/healthz")[0] == 200


def test_the_log_level_is_changed_from_this_machine_only() -> None:
    agent = Agent()
    with Server(":0", agent) as server:
        assert get(server, "/loglevel") == (200, "info\n")
        assert ask(server, "PUT", "/loglevel", b"debug\n") == (200, "debug\n")
        assert (agent.level, get(server, "/loglevel")) == (LogLevel.DEBUG, (200, "debug\n"))
        for bad in (b"loud", b"", b"x" * 1000):
            assert ask(server, "PUT", "/loglevel", bad) == (400, "write one of debug, info, warning, error\n")
        assert ask(server, "PUT", "/healthz", b"")[0] == 405
        assert ask(server, "POST", "/loglevel", b"error")[0] == 501
        # By an address of the machine that others reach, too, one looks like the others.
        elsewhere = next((str(one) for one in local_addresses() if one.family == 4), None)
        if elsewhere is None:
            pytest.skip("this machine has no other address than loopback's")
        assert ask(server, "PUT", "/loglevel", b"error", elsewhere)[0] == 403
        assert agent.level is LogLevel.DEBUG


def test_an_address_in_use() -> None:
    with (
        Server("127.0.0.1:0", Agent()) as first,
        pytest.raises(ConfigError, match="in use; choose another"),
        Server(f"127.0.0.1:{first.port}", Agent()),
    ):
        pass


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:1", ("127.0.0.1", 1)), (":9469", ("", 9469)), ("[::1]:80", ("::1", 80))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["9469", "host", "::1:80", "a:b", "1.2.3.4:99999"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="write one like"):
        parse_listen(text)
