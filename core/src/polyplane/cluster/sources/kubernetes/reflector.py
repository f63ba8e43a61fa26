"""`Reflector`: one thread that keeps one resource followed, whatever the API server does.

The state is small: the names that were emitted, and the version up to which everything has been emitted (None: unknown, so
the resource must be read in full). Reading in full is a WatchList where the server can do that, else a list in pages. Every
way in which it can go wrong ends in one of three decisions: go on from the version, read in full again, or look again whether
the resource exists.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec
import structlog
from urllib3.exceptions import HTTPError, ReadTimeoutError

from polyplane.cluster.model import SourceEvent, SourceProblem
from polyplane.cluster.sources.kubernetes import counters
from polyplane.cluster.sources.kubernetes.connection import TRANSPORT_ERRORS, ApiStatus, Connection, decode, status_of
from polyplane.cluster.sources.kubernetes.emitted import Emitted, Name
from polyplane.cluster.sources.kubernetes.resources import Resource
from polyplane.cluster.sources.kubernetes.shapes import Head, Page, decoder, event_decoder

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.source")

#: The bookmark that ends the initial events of a WatchList carries it (KEP-3157).
_END_OF_INITIAL: Final = "k8s.io/initial-events-end"
#: HTTP codes that mean "this version is of no use any more".
_GONE: Final = 410
#: Failures in a row after which a problem is shown, and a version is not trusted any more.
_PATIENCE: Final = 2
#: 2**16 first pauses are longer than any longest pause; the bound only keeps the number small.
_DOUBLINGS: Final = 16

_HEAD: Final = msgspec.json.Decoder(Head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds."""

    #: Objects a page of a list.
    page_size: int = 500
    watch_list: bool = True
    #: How long the server is asked to keep a watch; each one takes between half of it and all, so that not all end at once.
    watch_time: float = 600
    #: Longest silence of a watch; bookmarks come about every 60 s.
    silence: float = 90
    #: Pause after a failure; it doubles up to the longest. Each is cut to a random part.
    retry_first: float = 0.5
    retry_max: float = 30
    #: Between looks for a resource that the server does not have.
    absent_interval: float = 15


class Stopped(Exception):
    """The reflector was asked to stop."""


class Reflector:
    """Follows one resource; `run` is the body of its thread."""

    def __init__(
        self,
        resource: Resource,
        connection: Connection,
        settings: Settings,
        *,
        emit: Callable[[SourceEvent], None],
        synced: Callable[[], None],
        random: Random | None = None,
    ) -> None:
        """Prepare to follow; ``synced`` is called once, after everything has been emitted for the first time."""
        self.resource = resource
        self._connection = connection
        self._settings = settings
        self._emit = emit
        self._synced: Callable[[], None] | None = synced
        self._random = random or Random()  # noqa: S311  # jitter is no secret
        self._stopping = threading.Event()
        self._decode = decoder(resource.shape)
        self._decode_event = event_decoder(resource.shape)
        self._emitted = Emitted(resource, emit)
        self._path: str | None = None
        self._watch_list = settings.watch_list
        self._failures = 0
        self._reported = False
        self._kind = resource.kind
        #: Everything up to this version has been emitted; None while that is unknown.
        self.version: str | None = None

    def stop(self) -> None:
        """End `run` soon; the connection must be closed, too, to end it at once."""
        self._stopping.set()

    def run(self) -> None:
        """Follow the resource until stopped."""
        try:
            while not self._stopping.is_set():
                self._round()
        except Stopped:
            return

    def _round(self) -> None:
        """Take the next step, and decide what to do when it fails."""
        try:
            self._follow()
        except Stopped:
            raise
        except ApiStatus as status:
            self._refused(status)
        except TRANSPORT_ERRORS as error:
            self._failed(f"{type(error).__name__}: {error}", reason="connection")
        except Exception as error:  # noqa: BLE001  # following must survive a bug on one answer: read everything again
            _log.exception("following failed", kind=self._kind)
            self.version = None
            self._failed(f"{type(error).__name__}: {error}", reason="internal")

    # --- one round

    def _follow(self) -> None:
        """Go on with the next step: find, read in full, or watch until the watch ends."""
        if self._path is None:
            self._path = self.resource.find(self._connection)
            if self._path is None:
                self._absent()
                return
        if self.version is not None:
            self._watch({"resourceVersion": self.version}, initial=False)
        elif self._watch_list:
            self._list_by_watching()
        else:
            self._list()

    def _list_by_watching(self) -> None:
        """Read everything by a WatchList and go on watching, or find out that the server cannot do that."""
        try:
            self._watch({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}, initial=True)
        except ApiStatus as status:
            # 422: too old a server; an event with 500: its etcd cannot tell its progress. Neither, if it has worked.
            if self._has_version or (status.code, status.in_stream) not in {(400, False), (422, False), (500, True)}:
                raise
            why = str(status)
        except ReadTimeoutError:
            if self._has_version:
                raise
            why = "it did not end it"
        else:
            return
        _log.info("the API server cannot stream lists, reading them in pages", kind=self._kind, reason=why)
        self._watch_list = False

    @property
    def _has_version(self) -> bool:
        return self.version is not None

    def _absent(self) -> None:
        """Note that the server does not have the resource, and look again later."""
        self._settle(set())
        self._recovered()
        self._failures = 0
        counters.SYNCED.labels(self._kind).set(0)
        self._pause(self._settings.absent_interval * self._random.uniform(0.7, 1.3))

    def _list(self) -> None:
        """Read everything in pages."""
        counters.SYNCS.labels(self._kind, "list").inc()
        seen: set[Name] = set()
        token = ""
        limit = self._settings.page_size
        while True:
            query: dict[str, object] = {"limit": limit} if limit else {}
            if self.resource.selector:
                query["fieldSelector"] = self.resource.selector
            if token:
                query["continue"] = token
            try:
                page: Page = decode(self._connection.request("GET", self._required_path, query=query), Page)
            except ApiStatus as status:
                if status.code != _GONE or not token:
                    raise
                # The pages took so long that their version is gone. The token that comes with the error would go on with
                # another version, and what changed in between on the pages before would be lost: all at once instead.
                _log.info("a list in pages became too old, reading it at once", kind=self._kind)
                seen, token, limit = set(), "", 0
                continue
            for item in page.items or ():
                self._emitted.put(self._decode(item), seen)
            self._check_stop()
            token = page.metadata.token or ""
            if not token:
                break
        self.version = page.metadata.resource_version or None
        self._settle(seen)
        # The pauses go on growing until a watch says something: a server that lists and does not watch would else be asked for
        # everything again and again.

    def _watch(self, query: dict[str, object], *, initial: bool) -> None:
        """Watch until the watch ends; with ``initial`` the server sends everything there is first."""
        settings = self._settings
        query |= {"watch": "true", "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = max(1, round(settings.watch_time * self._random.uniform(0.5, 1)))
        if self.resource.selector:
            query["fieldSelector"] = self.resource.selector
        seen: set[Name] | None = set() if initial else None
        started = time.monotonic()
        heard = False
        try:
            with self._connection.stream(self._required_path, query, timeout=settings.silence) as stream:
                (counters.SYNCS.labels(self._kind, "watch-list") if initial else counters.STREAMS.labels(self._kind)).inc()
                self._recovered()
                for line in stream:
                    self._check_stop()
                    if self._take(line, seen):
                        seen = None
                    heard = True
                    self._failures = 0
        except ReadTimeoutError:
            if seen is not None:
                raise
            _log.info("a watch went silent", kind=self._kind)
        self._check_stop()
        if not heard:
            # A watch from a version that the server has not reached yet (its etcd was restored) is silent for ever, and a
            # healthy one sends at least a bookmark before it ends. Reading in full is right in either case.
            self.version = None
        if seen is not None:
            raise HTTPError("the watch ended before everything was sent")
        if time.monotonic() - started < settings.retry_first:
            self._pause(settings.retry_first * self._random.random())

    def _take(self, line: bytearray, seen: set[Name] | None) -> bool:
        """Take in one line of a watch; return whether it ended the initial events."""
        try:
            event = self._decode_event(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPError(f"a line of the watch cannot be read: {error}") from error
        ended = False
        match event.type:
            case "ERROR":
                raise status_of(event.object, in_stream=True)
            case "BOOKMARK":
                meta = _HEAD.decode(event.object).metadata
                version = meta.resource_version
                if seen is not None and (meta.annotations or {}).get(_END_OF_INITIAL) == "true":
                    self._settle(seen)
                    ended = True
            case "DELETED":
                version = self._emitted.remove(event.object)
            case _:
                version = self._emitted.put(event.object, seen)
        if version and (seen is None or ended):
            self.version = version
        return ended

    # --- objects

    @property
    def _required_path(self) -> str:
        if self._path is None:
            raise Stopped
        return self._path

    def _settle(self, seen: set[Name]) -> None:
        """Everything there is has been emitted: remove what was there before and is not any more."""
        self._emitted.keep(seen)
        counters.SYNCED.labels(self._kind).set(1)
        if self._synced is not None:
            self._synced()
            self._synced = None

    # --- failures

    def _refused(self, status: ApiStatus) -> None:
        """Decide what an error of the API server means."""
        if status.code == _GONE:
            _log.info("the version to watch from is gone, reading in full", kind=self._kind)
            self.version = None
            # Not a failure: it happens to every watch that was away for a while. The jitter keeps a fleet from coming at once.
            counters.FAILURES.labels(self._kind, "gone").inc()
            self._pause(self._settings.retry_first * self._random.random())
            return
        if status.code == 404 and not self.resource.built_in:
            self._path = self.version = None
        if status.code in {400, 422, 500} or self._failures >= _PATIENCE:
            # The request itself may be what it cannot answer; a malformed version gives 500.
            self.version = None
        self._failed(str(status), reason=str(status.code), at_least=status.retry_after)

    def _failed(self, why: str, *, reason: str, at_least: float = 0.0) -> None:
        if self._stopping.is_set():
            return
        counters.FAILURES.labels(self._kind, reason).inc()
        self._failures += 1
        _log.info("the API server failed us", kind=self._kind, error=why, attempt=self._failures)
        if self._failures >= _PATIENCE:
            self._reported = True
            counters.SYNCED.labels(self._kind).set(0)
            self._emit(SourceProblem(where=self._where, problem=f"{why}; {self._remedy(reason)}", stale=self._synced is None))
        longest = min(self._settings.retry_max, self._settings.retry_first * 2 ** min(self._failures - 1, _DOUBLINGS))
        # From zero: when a server comes back, thousands of nodes come back with it.
        self._pause(at_least + longest * self._random.random())

    @property
    def _where(self) -> str:
        return f"{self._connection.host} {self.resource}"

    def _remedy(self, reason: str) -> str:
        match reason:
            case "401":
                return "give the agent credentials that are valid"
            case "403":
                return f"allow the agent to get, list and watch {self.resource.kind} objects in all namespaces"
            case _:
                return "it is tried again"

    def _recovered(self) -> None:
        if self._reported:
            self._reported = False
            counters.SYNCED.labels(self._kind).set(1)
            self._emit(SourceProblem(where=self._where, problem=None))

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped

    def _check_stop(self) -> None:
        if self._stopping.is_set():
            raise Stopped
