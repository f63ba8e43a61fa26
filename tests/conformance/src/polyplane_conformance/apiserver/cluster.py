"""`Cluster`: objects, their revisions and the history that watches read; one lock around everything."""

from __future__ import annotations

import copy
import json
import threading
import uuid
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, NamedTuple

Raw = dict[str, Any]
#: Namespace (empty for cluster-scoped objects) and name.
Name = tuple[str, str]


class Kind(NamedTuple):
    """A kind of object and its name in URLs."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group_path(self) -> str:
        """Where its group and version are."""
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"


BUILT_IN: Final = (
    Kind("v1", "Pod", "pods"),
    Kind("v1", "Namespace", "namespaces", namespaced=False),
    Kind("v1", "Node", "nodes", namespaced=False),
    Kind("v1", "Service", "services"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("events.k8s.io/v1", "Event", "events"),
    Kind("v1", "Event", "events"),
)
_EVENT, _CORE_EVENT = BUILT_IN[-2:]

#: Writes that running watches can still read after a compaction.
_KEPT: Final = 10_000

#: What a kind's admission says: why it refuses an object, None if it takes it.
Admission = Callable[[Mapping[str, Any]], str | None]


class Refusal(Exception):
    """The server does not do it; becomes a Status object. ``token``: a list may go on with it, inconsistently.

    ``retry_after``: seconds the client should wait.
    """

    def __init__(self, code: int, reason: str, message: str, *, token: str = "", retry_after: int = 0) -> None:
        self.code = code
        self.retry_after = retry_after
        self.reason = reason
        self.token = token
        super().__init__(message)

    def status(self) -> Raw:
        """Return the Status object."""
        metadata = {"continue": self.token} if self.token else {}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }


@dataclass(frozen=True)
class Stored:
    """One version of an object, encoded once."""

    revision: int
    raw: Raw

    @cached_property
    def body(self) -> bytes:
        """The whole object, encoded."""
        return json.dumps(self.raw).encode()

    @cached_property
    def bare(self) -> bytes:
        """The same without what it says it is, as items of lists are."""
        return json.dumps({key: value for key, value in self.raw.items() if key not in ("apiVersion", "kind")}).encode()


@dataclass(frozen=True, slots=True)
class Logged:
    """One write: what was there before and after. A deletion's ``new`` is None and ``old`` carries the deletion's revision."""

    revision: int
    kind: Kind
    name: Name
    old: Stored | None
    new: Stored | None


@dataclass
class Cluster:
    """Everything a server knows. ``admission`` may refuse what is written."""

    admission: Admission | None = None
    revision: int = 1000
    #: Watches from before this revision are told that it is gone.
    compacted: int = 0
    kinds: list[Kind] = field(default_factory=lambda: list(BUILT_IN))
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._objects: dict[Kind, dict[Name, Stored]] = {kind: {} for kind in self.kinds}
        self._log: list[Logged] = []
        #: Lists that are being read in pages, by their revision.
        self._snapshots: dict[tuple[Kind, int], list[tuple[Name, Stored]]] = {}

    # --- kinds

    def kind(self, api_version: str, plural: str) -> Kind:
        """Return a kind by its place in URLs."""
        for kind in self.kinds:
            if (kind.api_version, kind.plural) == (api_version, plural):
                return kind
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def kind_of(self, raw: Mapping[str, Any]) -> Kind:
        """Return the kind that an object says it is."""
        for kind in self.kinds:
            if (kind.api_version, kind.kind) == (raw.get("apiVersion"), raw.get("kind")):
                return kind
        raise Refusal(404, "NotFound", f"no kind {raw.get('kind')} in {raw.get('apiVersion')}")

    def add_kind(self, kind: Kind) -> None:
        """Install the definition of a kind."""
        with self.changed:
            self.kinds.append(kind)
            self._objects[kind] = {}
            self.changed.notify_all()

    def remove_kind(self, kind: Kind) -> None:
        """Remove the definition of a kind, and with it its objects."""
        with self.changed:
            for namespace, name in list(self._objects[kind]):
                self.delete(kind, namespace, name)
            self.kinds.remove(kind)
            del self._objects[kind]
            self.changed.notify_all()

    # --- writing

    def put(self, raw: Mapping[str, Any]) -> int:
        """Create or replace an object and return its revision."""
        kind = self.kind_of(raw)
        with self.changed:
            name = self._name(kind, raw)
            if name in self._objects[kind]:
                return self.update(kind, raw).revision
            return self.create(kind, raw).revision

    def create(self, kind: Kind, raw: Mapping[str, Any]) -> Stored:
        """Create an object."""
        with self.changed:
            name = self._name(kind, raw)
            if name in self._objects[kind]:
                raise Refusal(409, "AlreadyExists", f'{kind.plural} "{name[1]}" already exists')
            own = {"uid": str(uuid.uuid4()), "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
            if kind == _EVENT:
                self._write(_CORE_EVENT, name, _core_event(raw), own)
            return self._write(kind, name, raw, own)

    def update(self, kind: Kind, raw: Mapping[str, Any]) -> Stored:
        """Replace an object; a resource version in it must be the current one."""
        with self.changed:
            name = self._name(kind, raw)
            old = self.get(kind, *name)
            asked = raw["metadata"].get("resourceVersion")
            if asked and asked != str(old.revision):
                raise Refusal(409, "Conflict", f'the object "{name[1]}" has been modified; apply your changes to the latest version')
            kept = {key: old.raw["metadata"][key] for key in ("uid", "creationTimestamp")}
            return self._write(kind, name, raw, kept)

    def patch(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Stored:
        """Merge a patch into an object (RFC 7386)."""
        with self.changed:
            merged = merge(copy.deepcopy(self.get(kind, namespace, name).raw), patch)
            merged["metadata"].pop("resourceVersion", None)
            return self.update(kind, merged)

    def delete(self, kind: Kind, namespace: str, name: str) -> Stored:
        """Remove an object at once."""
        with self.changed:
            old = self.get(kind, namespace, name)
            self.revision += 1
            raw = copy.deepcopy(old.raw)
            raw["metadata"]["resourceVersion"] = str(self.revision)
            last = Stored(self.revision, raw)
            del self._objects[kind][namespace, name]
            self._log.append(Logged(self.revision, kind, (namespace, name), last, None))
            self.changed.notify_all()
            return last

    def remove(self, raw_kind: str, namespace: str, name: str) -> int:
        """Remove an object by the name of its kind and return the revision."""
        kind = next(kind for kind in self.kinds if kind.kind == raw_kind)
        return self.delete(kind, namespace, name).revision

    def _name(self, kind: Kind, raw: Mapping[str, Any]) -> Name:
        metadata = raw.get("metadata") or {}
        if not metadata.get("name"):
            raise Refusal(422, "Invalid", "metadata.name: Required value: name or generateName is required")
        return (metadata.get("namespace") or "default") if kind.namespaced else "", metadata["name"]

    def _write(self, kind: Kind, name: Name, raw: Mapping[str, Any], own: Mapping[str, str]) -> Stored:
        if self.admission is not None and (why := self.admission(raw)) is not None:
            raise Refusal(422, "Invalid", f'{kind.kind} "{name[1]}" is invalid: {why}')
        self.revision += 1
        metadata = {**raw["metadata"], **own, "resourceVersion": str(self.revision)}
        if kind.namespaced:
            metadata["namespace"] = name[0]
        whole = {**raw, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        new = Stored(self.revision, whole)
        old = self._objects[kind].get(name)
        self._objects[kind][name] = new
        self._log.append(Logged(self.revision, kind, name, old, new))
        self.changed.notify_all()
        return new

    # --- reading

    def get(self, kind: Kind, namespace: str, name: str) -> Stored:
        """Return an object."""
        with self.changed:
            found = self._objects.get(kind, {}).get((namespace, name))
        if found is None:
            raise Refusal(404, "NotFound", f'{kind.plural} "{name}" not found')
        return found

    def objects(self, kind: Kind) -> list[tuple[Name, Stored]]:
        """Return all objects of a kind, by name."""
        with self.changed:
            return sorted(self._objects[kind].items(), key=lambda item: item[0])

    def snapshot(self, kind: Kind, revision: int | None = None) -> tuple[int, list[tuple[Name, Stored]]]:
        """Return a list that later pages can be taken from; with ``revision`` one that was taken before.

        :raises Refusal: it is gone
        """
        with self.changed:
            if revision is None:
                self._snapshots[kind, self.revision] = self.objects(kind)
                return self.revision, self._snapshots[kind, self.revision]
            found = self._snapshots.get((kind, revision))
            if found is None:
                self._snapshots[kind, self.revision] = self.objects(kind)
                raise Refusal(410, "Expired", "the provided continue parameter is too old", token=f"{self.revision}:")
            return revision, found

    def compact(self) -> None:
        """Forget the history: watches that begin before now, and lists in pages, are too old. Running watches live on."""
        with self.changed:
            self.compacted = self.revision
            self._snapshots.clear()
            del self._log[:-_KEPT]

    def since(self, revision: int) -> list[Logged]:
        """Return the writes after a revision."""
        with self.changed:
            return self._log[bisect_right(self._log, revision, key=lambda entry: entry.revision) :]


def _core_event(raw: Mapping[str, Any]) -> Raw:
    """Return an Event as the older API shows it, which kubectl reads: to a server both are the same object."""
    return {
        "metadata": raw["metadata"],
        "involvedObject": raw.get("regarding", {}),
        "message": raw.get("note", ""),
        "source": {"component": raw.get("reportingController", "")},
        **{key: raw[key] for key in ("reason", "type", "eventTime", "reportingInstance") if key in raw},
    }


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result
