"""`Server`: ``/healthz``, ``/readyz`` and ``/metrics`` for whoever operates the agent. Reads only, and nothing about pods by name.

It answers from threads of its own and asks the agent only for what may be read from any thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from polyplane.errors import ConfigError

#: Says what is wrong, None if nothing is.
Probe = Callable[[], str | None]

#: Seconds a client has to send its request, so that idle connections do not gather.
_TIMEOUT: Final = 10


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``address:port``, ``[address]:port`` or ``:port`` (all addresses).

    :raises ConfigError: it is none of these
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not int(port) <= 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(f"listen: {text!r} is not an address with a port; write one like 127.0.0.1:9469, [::1]:9469 or :9469")
    return host.strip("[]"), int(port)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = _TIMEOUT
    server_version = "polyplane"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a probe or a scrape."""
        match urlsplit(self.path).path:
            case "/healthz":
                self._probe(self.server.alive)
            case "/readyz":
                self._probe(self.server.ready)
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(REGISTRY), content_type)
            case _:
                self._answer(404, b"there are /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815  # the base class looks for this name

    def _probe(self, probe: Probe) -> None:
        wrong = probe()
        self._answer(503 if wrong else 200, f"{wrong or 'ok'}\n".encode())

    def _answer(self, code: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class calls it so
        """Say nothing: a probe every few seconds is no news."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], alive: Probe, ready: Probe) -> None:
        host, port = address
        self.address_family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
        self.alive, self.ready = alive, ready
        super().__init__((host or "::", port), _Handler)

    def server_bind(self) -> None:
        """Take IPv4, too, when listening on all addresses."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not the base class's own, which looks up the host's name.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "polyplane", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class Server:
    """Listens while it is entered."""

    def __init__(self, listen: str, *, alive: Probe, ready: Probe) -> None:
        """Check the address.

        :raises ConfigError: it is none
        """
        self._listen = listen
        self._address = parse_listen(listen)
        self._alive, self._ready = alive, ready
        self._http: _Http | None = None

    @property
    def port(self) -> int:
        """The port; the one the system chose, if port 0 was asked for."""
        return self._http.server_port if self._http is not None else self._address[1]

    def __enter__(self) -> Self:
        """Listen.

        :raises ConfigError: the address cannot be had
        """
        try:
            self._http = _Http(self._address, self._alive, self._ready)
        except OSError as error:
            if self._address[0] or error.errno is None:
                raise self._unavailable(error) from error
            try:  # a machine without IPv6
                self._http = _Http(("0.0.0.0", self._address[1]), self._alive, self._ready)  # noqa: S104  # what ":port" asks for
            except OSError as again:
                raise self._unavailable(again) from again
        threading.Thread(target=self._http.serve_forever, name="polyplane-serve", daemon=True).start()
        return self

    def _unavailable(self, error: OSError) -> ConfigError:
        return ConfigError(f"listen: {self._listen} cannot be listened on: {error.strerror}; choose another address or port")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
