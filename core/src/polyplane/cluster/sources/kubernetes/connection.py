"""`Connection`: how to reach the API server, and requests to it.

Kubeconfig, in-cluster service account, exec plugins, proxies and TLS are the ``kubernetes`` package's business. Of it only the
configuration and the connection pool are used: its generated models are never imported (since release 37 they are lazy).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
import urllib3
from kubernetes import config as kube_config
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from urllib3.exceptions import HTTPError

from polyplane.errors import ConfigError, PolyplaneError

#: Seconds to establish a connection, and between two pieces of an answer that is not a watch.
CONNECT_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
#: Bytes taken from a watch at once, at most.
_PIECE: Final = 1 << 16
#: No object is longer: etcd refuses values over 1.5 MiB, and JSON is at most some times as long as what it stores.
_MAX_LINE: Final = 16 << 20

#: What a request can fail with although everything is right on this side.
TRANSPORT_ERRORS: Final = (HTTPError, OSError)


class _Status(msgspec.Struct, rename="camel"):
    """meta/v1 Status, as far as it tells what to do."""

    kind: str | None = None
    code: int | None = None
    reason: str | None = None
    message: str | None = None


class ApiStatus(PolyplaneError):
    """The API server answered with an error, by HTTP status or by an ERROR event of a watch.

    ``in_stream``: it came as an event. ``retry_after``: seconds it asked to wait.
    """

    def __init__(self, code: int, reason: str, message: str, *, in_stream: bool = False, retry_after: float = 0.0) -> None:
        self.code = code
        self.reason = reason
        self.in_stream = in_stream
        self.retry_after = retry_after
        super().__init__(f"{code} {reason}: {message}" if message else f"{code} {reason}")


def status_of(
    body: bytes | msgspec.Raw, code: int = 0, *, reason: str = "", retry_after: float = 0.0, in_stream: bool = False
) -> ApiStatus:
    """Read a Status object; ``code`` and ``reason`` are what HTTP said, for answers that are none."""
    try:
        status = msgspec.json.decode(body, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = _Status()
    message = status.message or ""
    if status.kind != "Status":
        message = bytes(body)[:200].decode(errors="replace").strip()
    return ApiStatus(status.code or code, status.reason or reason or "unknown", message, in_stream=in_stream, retry_after=retry_after)


class Stream:
    """The lines of one watch. Another thread may end it with `cut`."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytearray]:
        """Yield complete lines; a last one that was cut off is dropped.

        :raises HTTPError: the connection was lost, or nothing came for the read timeout
        """
        rest = bytearray()
        while piece := self._read():
            rest += piece
            if len(rest) > _MAX_LINE:
                raise HTTPError("the server sends a line without end")
            if b"\n" not in piece:
                continue
            *lines, last = rest.split(b"\n")
            yield from filter(None, lines)
            rest = last

    def _read(self) -> bytes:
        try:
            return self._response.read1(_PIECE)
        except (AttributeError, ValueError) as error:
            # What is left of a response that `cut` closed under a reader.
            raise HTTPError(f"connection closed: {error}") from error

    def cut(self) -> None:
        """End the connection, so that a blocked reader wakes up."""
        with contextlib.suppress(Exception):  # it may be closed in every state of being closed
            self._response.shutdown()


class Connection:
    """An API server and who we are to it. May be used from several threads."""

    def __init__(self, *, kubeconfig: str | None = None, context: str | None = None) -> None:
        """Find the configuration: the named file, else ``KUBECONFIG``, else the pod's service account, else ``~/.kube/config``.

        :raises ConfigError: there is none, or it cannot be used
        """
        self._kubeconfig = kubeconfig
        self._context = context
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self._closed = False
        self._configuration, self._pool = self._load()

    @property
    def host(self) -> str:
        """The server's URL."""
        return str(self._configuration.host).rstrip("/")

    def _load(self) -> tuple[Configuration, urllib3.PoolManager]:
        configuration = Configuration()
        try:
            if self._kubeconfig is None and not os.environ.get("KUBECONFIG") and os.environ.get("KUBERNETES_SERVICE_HOST"):
                kube_config.load_incluster_config(client_configuration=configuration)
            else:
                name = self._kubeconfig or os.environ.get("KUBECONFIG")
                if name is not None and os.pathsep not in name and not Path(name).expanduser().is_file():
                    raise ConfigError(f"source kubernetes: {name}: no such file; name a kubeconfig with option 'kubeconfig'")
                kube_config.load_kube_config(
                    config_file=name, context=self._context, client_configuration=configuration, persist_config=False
                )
        except PolyplaneError:
            raise
        except Exception as error:
            raise ConfigError(
                f"source kubernetes: the configuration of the API server cannot be used: {error}; correct the kubeconfig"
            ) from error
        return configuration, RESTClientObject(configuration).pool_manager

    def renew(self) -> None:
        """Read the configuration again: credentials may have been replaced on disk. What is wrong with it then is no error yet."""
        with contextlib.suppress(ConfigError):
            configuration, pool = self._load()
            with self._lock:
                self._configuration, self._pool = configuration, pool

    def _headers(self, configuration: Configuration) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "polyplane"}
        try:
            # Asking for the settings lets the package refresh tokens that are about to expire.
            settings: dict[str, dict[str, str]] = configuration.auth_settings()
            headers.update({setting["key"]: setting["value"] for setting in settings.values() if setting["value"]})
        except Exception as error:
            raise ApiStatus(401, "NoCredentials", f"{type(error).__name__}: {error}") from error
        return headers

    def _send(
        self, method: str, path: str, *, query: Mapping[str, object], body: object, content_type: str, timeout: float
    ) -> urllib3.BaseHTTPResponse:
        with self._lock:
            configuration, pool = self._configuration, self._pool
        headers = self._headers(configuration)
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = msgspec.json.encode(body)
        url = f"{str(configuration.host).rstrip('/')}{path}"
        response = pool.request(
            method,
            f"{url}?{urlencode(query)}" if query else url,
            headers=headers,
            body=data,
            timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, timeout), read=timeout),
            retries=False,
            preload_content=False,
        )
        if response.status < 300:
            return response
        try:
            answer = response.data
        finally:
            response.release_conn()
        after = response.headers.get("Retry-After", "")
        status = status_of(answer, response.status, reason=response.reason or "", retry_after=float(after) if after.isdecimal() else 0.0)
        if status.code == 401:
            self.renew()
        raise status

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout: float = READ_TIMEOUT,
    ) -> bytes:
        """Send a request and return the whole answer.

        :raises ApiStatus: the server refuses
        :raises HTTPError: it cannot be reached, or the answer is cut off
        """
        response = self._send(method, path, query=query or {}, body=body, content_type=content_type, timeout=timeout)
        try:
            data: bytes = response.data
        finally:
            response.release_conn()
        return data

    @contextlib.contextmanager
    def stream(self, path: str, query: Mapping[str, object], *, timeout: float) -> Iterator[Stream]:
        """Open a watch; ``timeout`` is the longest silence.

        :raises ApiStatus: the server refuses
        :raises HTTPError: it cannot be reached
        """
        response = self._send("GET", path, query=query, body=None, content_type="", timeout=timeout)
        stream = Stream(response)
        with self._lock:
            self._open.add(stream)
            closed = self._closed
        try:
            if closed:
                raise HTTPError("connection closed")
            yield stream
        finally:
            with self._lock:
                self._open.discard(stream)
            response.close()

    def close(self) -> None:
        """End all streams, now and in future."""
        with self._lock:
            self._closed = True
            streams = list(self._open)
        for stream in streams:
            stream.cut()

    def reopen(self) -> None:
        """Allow streams again after `close`."""
        with self._lock:
            self._closed = False


def decode(body: bytes, shape: type[Any]) -> Any:
    """Decode an answer into a msgspec shape.

    :raises HTTPError: it is cut off or something else than what was asked for
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPError(f"the answer cannot be read: {error}") from error
