"""`Handler`: one connection's requests, routed to lists, watches and writes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from polyplane_conformance.apiserver import discovery
from polyplane_conformance.apiserver.cluster import Kind, Raw, Refusal
from polyplane_conformance.apiserver.lists import list_page
from polyplane_conformance.apiserver.watches import Watch

if TYPE_CHECKING:
    from polyplane_conformance.apiserver.server import ApiServer, HttpServer

_PATCHES: Final = ("application/merge-patch+json", "application/strategic-merge-patch+json")


class Cut(Exception):
    """The connection must be closed in the middle of an answer."""


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 with one client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    @property
    def owner(self) -> ApiServer:
        """The server whose cluster and faults count."""
        return self.server.owner

    def setup(self) -> None:
        """Note the connection, so that it can be reset."""
        super().setup()
        self.owner.opened(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.owner.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class calls it so
        """Say nothing."""

    def do_GET(self) -> None:
        """Read: discovery, one object, a list or a watch."""
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  # the base class looks for these names

    # --- routing

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        watch = query.get("watch") in ("true", "1")
        self.owner.requests.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        try:
            try:
                self._admit(parts.path, watch=watch)
                self._route(parts.path.strip("/").split("/"), parts.path, query, body, watch=watch)
            except Refusal as refusal:
                self.send_body(refusal.code, json.dumps(refusal.status()).encode(), retry_after=refusal.retry_after)
        except (Cut, OSError):
            self.close_connection = True

    def _admit(self, path: str, *, watch: bool) -> None:
        faults = self.owner.faults
        if (failure := faults.next_failure(path, watch=watch)) is not None:
            code, retry_after = failure
            raise Refusal(code, "TestAsked", "this failure was asked for", retry_after=retry_after)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").removeprefix("bearer ")
        if faults.tokens is not None and token not in faults.tokens:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if any(part in faults.forbidden for part in path.split("/")):
            raise Refusal(403, "Forbidden", f'{path} is forbidden: user "test" cannot do that')

    def _route(self, parts: list[str], path: str, query: Mapping[str, str], body: bytes, *, watch: bool) -> None:
        cluster = self.owner.cluster
        if parts[-1] in ("healthz", "readyz", "livez"):
            self.send_body(200, b"ok", content_type="text/plain")
            return
        if (found := discovery.answer(cluster, parts)) is not None:
            self.send_json(200, found)
            return
        api_version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        if not rest or not api_version.strip("/"):
            self.send_body(404, b"404 page not found\n", content_type="text/plain")
            return
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = cluster.kind(api_version, rest[0])
        if len(rest) > 1:
            self._one(kind, namespace, rest[1], body)
        elif self.command == "POST":
            raw = json.loads(body)
            if kind.namespaced:
                raw.setdefault("metadata", {}).setdefault("namespace", namespace or "default")
            self.send_json(201, cluster.create(kind, raw).raw)
        elif watch:
            Watch(self, kind, namespace, query, path).run()
        else:
            self.send_body(200, list_page(cluster, kind, namespace, query), path=path)

    def _one(self, kind: Kind, namespace: str, name: str, body: bytes) -> None:
        cluster = self.owner.cluster
        match self.command:
            case "GET":
                found: Raw = cluster.get(kind, namespace, name).raw
            case "PUT":
                found = cluster.update(kind, json.loads(body)).raw
            case "PATCH":
                if (self.headers.get("Content-Type") or "") not in _PATCHES:
                    raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
                found = cluster.patch(kind, namespace, name, json.loads(body)).raw
            case _:
                found = cluster.delete(kind, namespace, name).raw
        self.send_json(200, found)

    # --- answering

    def send_json(self, code: int, content: Mapping[str, Any]) -> None:
        """Answer with an object."""
        self.send_body(code, json.dumps(content).encode())

    def send_body(self, code: int, body: bytes, *, path: str = "", content_type: str = "application/json", retry_after: int = 0) -> None:
        """Answer with a whole body, unless a fault wants otherwise."""
        faults = self.owner.faults
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        if path and (after := faults.next_cut(path, watch=False)) is not None:
            self.wfile.write(body[:after])
            raise Cut
        if not faults.delay:
            self.wfile.write(body)
            return
        for start in range(0, len(body), faults.piece):
            time.sleep(faults.delay)
            self.wfile.write(body[start : start + faults.piece])
            self.wfile.flush()
