"""`Server`: ``/healthz``, ``/readyz``, ``/metrics`` and ``/loglevel`` for whoever operates the agent; nothing about pods by name.

It answers from threads of its own and asks the agent only for what may be read from any thread. The one thing that it changes,
the log level, it changes for those alone who are on this machine.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from polyplane.config import LogLevel
from polyplane.errors import ConfigError

#: Says what is wrong, None if nothing is.
Probe = Callable[[], str | None]

#: Longest log level that is read, with room for a line's end.
_LEVEL_LIMIT: Final = 16
_LEVELS: Final = f"write one of {', '.join(LogLevel)}\n".encode()

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


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


class Operations(Protocol):
    """What the server asks of the agent; every method may be called from any thread."""

    def alive(self) -> str | None:
        """Say why the agent should be restarted; None if it should not."""

    def ready(self) -> str | None:
        """Say why this node's policies are not in force; None once they are."""

    def log_level(self) -> LogLevel:
        """Return the level that is in force."""

    def set_log_level(self, level: LogLevel) -> None:
        """Change it soon."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = _TIMEOUT
    server_version = "polyplane"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a probe or a scrape."""
        match urlsplit(self.path).path:
            case "/healthz":
                self._probe(self.server.operations.alive)
            case "/readyz":
                self._probe(self.server.operations.ready)
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(REGISTRY), content_type)
            case "/loglevel":
                self._answer(200, f"{self.server.operations.log_level()}\n".encode())
            case _:
                self._answer(404, b"there are /healthz, /readyz, /metrics and /loglevel\n")

    do_HEAD = do_GET  # noqa: N815  # the base class looks for this name

    def do_PUT(self) -> None:
        """Change the log level until the agent ends or reads its configuration again."""
        length = self.headers.get("Content-Length", "")
        if urlsplit(self.path).path != "/loglevel":
            self._answer(405, b"only /loglevel can be changed\n")
        elif not _is_loopback(self.client_address[0]):
            self._answer(403, b"the log level can be changed from this machine only; ask 127.0.0.1\n")
        elif not length.isdecimal() or int(length) > _LEVEL_LIMIT:
            self.close_connection = True
            self._answer(400, _LEVELS)
        else:
            text = self.rfile.read(int(length)).decode(errors="replace").strip().lower()
            if text not in set(LogLevel):
                self._answer(400, _LEVELS)
                return
            self.server.operations.set_log_level(LogLevel(text))
            self._answer(200, f"{text}\n".encode())

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

    def __init__(self, address: tuple[str, int], operations: Operations) -> None:
        host, port = address
        self.address_family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
        self.operations = operations
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

    def __init__(self, listen: str, operations: Operations) -> None:
        """Check the address.

        :raises ConfigError: it is none
        """
        self._listen = listen
        self._address = parse_listen(listen)
        self._operations = operations
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
            self._http = _Http(self._address, self._operations)
        except OSError as error:
            if self._address[0] or error.errno is None:
                raise self._unavailable(error) from error
            try:  # a machine without IPv6
                self._http = _Http(("0.0.0.0", self._address[1]), self._operations)  # noqa: S104  # what ":port" asks for
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
