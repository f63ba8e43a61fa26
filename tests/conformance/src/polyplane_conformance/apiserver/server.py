"""`ApiServer`: a `Cluster` behind a listening socket, that can be stopped, restarted and made to misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from polyplane_conformance.apiserver.cluster import Cluster
from polyplane_conformance.apiserver.faults import Faults
from polyplane_conformance.apiserver.handler import Handler

#: Closes a connection at once, with a reset.
_ABORT: Final = struct.pack("ii", 1, 0)


class HttpServer(ThreadingHTTPServer):
    """The listening socket with what its handlers need."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, owner: ApiServer, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.owner = owner
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class ApiServer:
    """Serves a cluster on a port of this machine. A context manager.

    ``bookmarks``: seconds between the bookmarks of a watch. The server's port stays the same over `stop` and `start`.
    """

    def __init__(self, cluster: Cluster | None = None, *, bookmarks: float = 60.0, tls: ssl.SSLContext | None = None) -> None:
        self.cluster = cluster or Cluster()
        self.faults = Faults()
        self.bookmarks = bookmarks
        #: Requests as ``METHOD path?query``, in their order.
        self.requests: list[str] = []
        self._tls = tls
        self._port = 0
        self._http: HttpServer | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._bookmark_asked = 0

    # --- life

    def start(self) -> Self:
        """Listen; in the network namespace of the calling thread."""
        self._http = HttpServer(self, ("127.0.0.1", self._port))
        self._port = self._http.server_address[1]
        if self._tls is not None:
            self._http.socket = self._tls.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, name="apiserver", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and close all connections, as a server that dies does."""
        http, self._http = self._http, None
        if http is not None:
            http.stopping.set()
            http.shutdown()
            http.server_close()
            self.disconnect()
            with self.cluster.changed:
                self.cluster.changed.notify_all()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def disconnect(self) -> None:
        """Reset every connection."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # --- what handlers and tests share

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls is not None else 'http'}://127.0.0.1:{self._port}"

    def kubeconfig(self, path: Path, *, token: str = "", authority: Path | None = None) -> Path:
        """Write a kubeconfig and return its path."""
        cluster: dict[str, str] = {"server": self.url}
        if authority is not None:
            cluster["certificate-authority"] = str(authority)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML, too
        return path

    def bookmark(self) -> None:
        """Let every watch send a bookmark now."""
        with self.cluster.changed:
            self._bookmark_asked += 1
            self.cluster.changed.notify_all()

    @property
    def bookmarks_asked(self) -> int:
        """How often `bookmark` was called."""
        return self._bookmark_asked

    def opened(self, connection: socket.socket) -> None:
        """Note a connection."""
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._connections)
