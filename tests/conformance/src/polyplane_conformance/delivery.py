"""How a world's writes reach the store: straight, or by way of an API server and the source that follows it."""

from __future__ import annotations

import contextlib
import queue
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from polyplane.cluster.model import InSync, PutObject, RemoveObject, SourceEvent
from polyplane.plugins import Source, dialects, load_source
from polyplane_conformance.apiserver import ApiServer, Cluster, Kind, Refusal
from polyplane_conformance.control import event_of
from polyplane_conformance.oracle import refusal
from polyplane_conformance.world import API_VERSIONS, Raw, Write

#: Names of the ways.
SOURCES: Final = ("direct", "kubernetes")

#: Where the marks are that tell how far a source has come; no scenario looks there.
_MARKS: Final = "polyplane-marks"
#: Seconds to wait for a source.
_PATIENCE: Final = 20.0
_MARK_KINDS: Final = (("v1", "Namespace"), ("v1", "Node"), ("v1", "Pod"), *((version, kind) for kind, version in API_VERSIONS.items()))


class Delivery(Protocol):
    """One cluster at a time, from `begin` to the next."""

    def begin(self) -> None:
        """Forget everything."""

    def deliver(self, writes: Iterable[Write]) -> list[SourceEvent]:
        """Return what the source says after these writes."""

    def restart(self, writes: Iterable[Write]) -> list[SourceEvent]:
        """Return what a fresh source says of the present; ``writes`` are the last accepted and later refused ones of every object."""

    def close(self) -> None:
        """Release everything."""


class Direct:
    """No source at all: each write is an event, also one that an API server would refuse."""

    def begin(self) -> None:
        """Nothing to forget."""

    def deliver(self, writes: Iterable[Write]) -> list[SourceEvent]:
        """Return an event for each write."""
        return [event_of(write) for write in writes]

    restart = deliver

    def close(self) -> None:
        """Nothing to release."""


class ThroughApiServer:
    """Writes go to an API server, and events come from the source plugin ``kubernetes``.

    The server refuses what it should. That the source has said everything shows by marks: after the writes an object of every
    kind is changed, and each kind's events come in their order.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="polyplane-api-")
        self._server = ApiServer()
        self._source: Source | None = None
        self._events: queue.SimpleQueue[SourceEvent] = queue.SimpleQueue()
        self._marks = 0

    def begin(self) -> None:
        """Start a new server with nothing in it, and a source."""
        self._stop()
        self._server = ApiServer(make_cluster()).start()
        self._start()

    def deliver(self, writes: Iterable[Write]) -> list[SourceEvent]:
        """Write, and return what the source says until it has seen everything."""
        for write in writes:
            self._write(write)
        self._mark()
        return self._until_marked()

    def restart(self, writes: Iterable[Write]) -> list[SourceEvent]:  # the server remembers
        """Start the source anew and return what it says."""
        if self._source is not None:
            self._source.stop()
        self._mark()
        self._start()
        return self._until_marked(InSync.__name__)

    def close(self) -> None:
        """Stop source and server."""
        self._stop()
        self._folder.cleanup()

    def _start(self) -> None:
        self._events = queue.SimpleQueue()
        kubeconfig = self._server.kubeconfig(Path(self._folder.name, "kubeconfig"))
        self._source = load_source("kubernetes", {"kubeconfig": str(kubeconfig)})
        self._source.start(self._events.put, dialects())

    def _stop(self) -> None:
        if self._source is not None:
            self._source.stop()
            self._source = None
        self._server.stop()

    def _write(self, write: Write) -> None:
        kind, namespace, name = write.key
        if write.raw is None:
            with contextlib.suppress(Refusal):  # it was refused, so it never was there
                self._server.cluster.remove(kind, namespace, name)
            return
        try:
            self._server.cluster.put(write.raw)
        except Refusal:
            if write.accepted:
                raise

    def _mark(self) -> None:
        self._marks += 1
        for api_version, kind in _MARK_KINDS:
            self._server.cluster.put(_mark(api_version, kind, self._marks))

    def _until_marked(self, *more: str) -> list[SourceEvent]:
        """Take events until the mark of every kind has come; the marks themselves are left out.

        What is there at the start of a source comes in any order, so that marks mean nothing then: ``more`` asks for InSync, too.
        """
        missing = {*(kind for _, kind in _MARK_KINDS), *more}
        said: list[SourceEvent] = []
        while missing:
            try:
                event = self._events.get(timeout=_PATIENCE)
            except queue.Empty:
                raise TimeoutError(f"the source has not delivered {', '.join(sorted(missing))} within {_PATIENCE} s") from None
            if isinstance(event, PutObject | RemoveObject) and event.key.name == _MARKS:
                if isinstance(event, PutObject) and event.raw["metadata"]["labels"]["mark"] == str(self._marks):
                    missing.discard(event.key.kind)
            elif isinstance(event, InSync):  # the suite's control planes are in sync from the beginning
                missing.discard(InSync.__name__)
            else:
                said.append(event)
        return said


def make_delivery(name: str) -> Delivery:
    """Return the way with this name."""
    return Direct() if name == "direct" else ThroughApiServer()


def make_cluster() -> Cluster:
    """Return an empty cluster with the definitions of all policy APIs, that refuses what their servers refuse."""
    cluster = Cluster(admission=_admission)
    known = {kind.kind for kind in cluster.kinds}
    for kind, api_version in API_VERSIONS.items():
        if kind not in known:
            cluster.add_kind(Kind(api_version, kind, f"{kind.lower().removesuffix('y')}ies", namespaced=False))
    return cluster


def _admission(raw: Raw) -> str | None:
    return refusal(raw) if raw.get("kind") in API_VERSIONS and raw["metadata"]["name"] != _MARKS else None


def _mark(api_version: str, kind: str, number: int) -> Raw:
    """Return a mark; no store ever sees one, so it need not be valid."""
    metadata = {"name": _MARKS, "labels": {"mark": str(number)}}
    if kind in {"Pod", "NetworkPolicy"}:
        metadata["namespace"] = _MARKS
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {}}
