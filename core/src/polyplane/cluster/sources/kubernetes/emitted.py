"""`Emitted`: the objects of one resource that have been emitted, by name, so that those that have disappeared can be told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polyplane.cluster.model import ObjectKey, PutObject, RemoveObject, SourceEvent
from polyplane.cluster.sources.kubernetes import counters
from polyplane.cluster.sources.kubernetes.resources import Resource
from polyplane.cluster.sources.kubernetes.shapes import Raw

#: Namespace (empty for objects without) and name.
Name = tuple[str, str]


class Emitted:
    """Emits objects and deletions of one resource, and remembers the names."""

    def __init__(self, resource: Resource, emit: Callable[[SourceEvent], None]) -> None:
        self._resource: Final = resource
        self._emit: Final = emit
        self._names: Final[set[Name]] = set()
        self._puts: Final = counters.EVENTS.labels(resource.kind, "put")
        self._removals: Final = counters.EVENTS.labels(resource.kind, "remove")

    def put(self, raw: Raw, seen: set[Name] | None = None) -> str | None:
        """Emit an object, enter its name into ``seen``, return its version."""
        resource = self._resource
        # Items of lists do not say what they are.
        raw["apiVersion"], raw["kind"] = resource.api_version, resource.kind
        name, version = _identity(raw)
        self._names.add(name)
        if seen is not None:
            seen.add(name)
        self._puts.inc()
        self._emit(PutObject(key=ObjectKey(resource.api_version, resource.kind, *name), raw=raw))
        return version

    def remove(self, raw: Raw) -> str | None:
        """Emit the deletion of an object, return its last version."""
        name, version = _identity(raw)
        self._remove(name)
        return version

    def keep(self, seen: set[Name]) -> None:
        """Emit the deletion of whatever is not among these, which are all there is."""
        for name in sorted(self._names - seen):
            self._remove(name)

    def _remove(self, name: Name) -> None:
        self._names.discard(name)
        self._removals.inc()
        self._emit(RemoveObject(ObjectKey(self._resource.api_version, self._resource.kind, *name)))


def _identity(raw: Raw) -> tuple[Name, str | None]:
    """Return namespace and name of an object, and its version."""
    metadata = raw.get("metadata") or {}
    return (metadata.get("namespace") or "", metadata.get("name") or ""), metadata.get("resourceVersion")
