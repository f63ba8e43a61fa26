"""`Watch`: one watch, from its first event to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from polyplane_conformance.apiserver.cluster import Kind, Logged, Refusal, Stored
from polyplane_conformance.apiserver.faults import WatchList
from polyplane_conformance.apiserver.lists import selected, version_of

if TYPE_CHECKING:
    from polyplane_conformance.apiserver.handler import Handler

_DEFAULT_SECONDS: Final = 1800.0
#: Longest wait for a change before looking whether the server is stopping.
_TICK: Final = 0.5


class Watch:
    """Writes events until its time is over or the connection ends."""

    def __init__(self, handler: Handler, kind: Kind, namespace: str, query: Mapping[str, str], path: str) -> None:
        self._handler = handler
        self._owner = handler.owner
        self._cluster = handler.owner.cluster
        self._kind = kind
        self._namespace = namespace
        self._selector = query.get("fieldSelector", "")
        self._query = query
        self._path = path
        self._bookmarks = query.get("allowWatchBookmarks") == "true"
        self._ends = time.monotonic() + float(query.get("timeoutSeconds") or _DEFAULT_SECONDS)
        self._left = self._owner.faults.next_cut(path, watch=True)

    def run(self) -> None:
        """Answer the request.

        :raises Refusal: before the answer has begun
        """
        initial = self._query.get("sendInitialEvents") == "true"
        version = self._query.get("resourceVersion", "")
        start = version_of(version) if version else 0
        faults = self._owner.faults
        if initial and faults.watch_list is WatchList.UNKNOWN:
            raise Refusal(
                422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the feature is enabled"
            )
        if initial and self._query.get("resourceVersionMatch") != "NotOlderThan":
            raise Refusal(422, "Invalid", "resourceVersionMatch: Forbidden: sendInitialEvents requires resourceVersionMatch=NotOlderThan")
        self._begin()
        error = faults.next_error_event(self._path)
        if initial and faults.watch_list is WatchList.OLD_ETCD:
            error = 500
        if error is not None:
            reason = "Expired" if error == 410 else "InternalError"
            self._send("ERROR", Refusal(error, reason, "RequestWatchProgress is disabled" if initial else "asked for").status())
        elif start and start < self._cluster.compacted:
            self._send("ERROR", Refusal(410, "Expired", f"too old resource version: {start} ({self._cluster.compacted})").status())
        elif start > self._cluster.revision or self._muted:
            self._hang()
        else:
            self._follow(start, initial=initial)
        self._handler.wfile.write(b"0\r\n\r\n")

    def _begin(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "application/json")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()
        self._handler.wfile.flush()

    def _hang(self) -> None:
        while time.monotonic() < self._ends and not self._handler.server.stopping.is_set():
            time.sleep(0.05)

    def _follow(self, start: int, *, initial: bool) -> None:
        first: list[Stored] = []
        with self._cluster.changed:
            asked = self._owner.bookmarks_asked
            if start == 0:
                first = [stored for name, stored in self._cluster.objects(self._kind) if self._takes(name, stored)]
                start = self._cluster.revision
        for stored in first:
            self._send_body("ADDED", stored.body)
        if initial and self._bookmarks and self._owner.faults.watch_list is not WatchList.ENDLESS:
            self._bookmark(start, {"annotations": {"k8s.io/initial-events-end": "true"}})
        next_bookmark = time.monotonic() + self._owner.bookmarks
        while not self._handler.server.stopping.is_set() and self._kind in self._cluster.kinds:
            with self._cluster.changed:
                wanted = self._owner.bookmarks_asked
                written = self._cluster.since(start)
                start = max(start, self._cluster.revision)
            for entry in written:
                self._tell(entry)
            now = time.monotonic()
            over = now >= self._ends
            if self._bookmarks and (over or now >= next_bookmark or wanted != asked) and not self._muted:
                asked = wanted
                next_bookmark = now + self._owner.bookmarks
                self._bookmark(start)
            if over:
                return
            with self._cluster.changed:
                if self._cluster.revision == start and self._owner.bookmarks_asked == asked:
                    self._cluster.changed.wait(max(0.0, min(_TICK, self._ends - now, next_bookmark - now)))

    @property
    def _muted(self) -> bool:
        return self._kind.plural in self._owner.faults.mute

    def _takes(self, name: tuple[str, str], stored: Stored) -> bool:
        return self._namespace in ("", name[0]) and selected(self._selector, stored.raw)

    def _tell(self, entry: Logged) -> None:
        """Send a write as this watch sees it: what its selector stops taking is deleted for it."""
        if entry.kind != self._kind or self._muted:
            return
        for what, stored in self._seen(entry):
            self._send_body(what, stored.body)

    def _seen(self, entry: Logged) -> Iterator[tuple[str, Stored]]:
        before = entry.old is not None and self._takes(entry.name, entry.old)
        after = entry.new is not None and self._takes(entry.name, entry.new)
        if entry.new is None:
            if before and entry.old is not None:
                yield "DELETED", entry.old
        elif after:
            yield "MODIFIED" if before else "ADDED", entry.new
        elif before:
            yield "DELETED", entry.new

    def _bookmark(self, revision: int, extra: Mapping[str, Any] | None = None) -> None:
        content: dict[str, Any] = {
            "kind": self._kind.kind,
            "apiVersion": self._kind.api_version,
            "metadata": {"resourceVersion": str(revision), "creationTimestamp": None, **(extra or {})},
        }
        if self._kind.kind == "Pod":
            content |= {"spec": {"containers": None}, "status": {}}
        self._send("BOOKMARK", content)

    def _send(self, what: str, content: Mapping[str, Any]) -> None:
        self._send_body(what, json.dumps(content).encode())

    def _send_body(self, what: str, body: bytes) -> None:
        line = b'{"type":"%s","object":%s}\n' % (what.encode(), body)
        out = self._handler.wfile
        if self._left is not None:
            if len(line) > self._left:
                out.write(b"%x\r\n%s\r\n" % (self._left, line[: self._left]) if self._left else b"")
                out.flush()
                raise ConnectionAbortedError
            self._left -= len(line)
        faults = self._owner.faults
        if not faults.delay:
            out.write(b"%x\r\n%s\r\n" % (len(line), line))
            out.flush()
            return
        for start in range(0, len(line), faults.piece):
            time.sleep(faults.delay)
            piece = line[start : start + faults.piece]
            out.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            out.flush()
