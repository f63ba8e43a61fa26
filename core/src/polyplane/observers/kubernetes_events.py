"""`KubernetesEventsObserver`: tells the authors of policies, by Events on their objects, what is not enforced as written.

No node leads: all agents would say the same of the same object, so the name of an Event is made from what it says. The first
agent creates it, the others are told that it exists. Events expire, so what still holds is said again now and then.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from polyplane.cluster.model import ObjectKey
from polyplane.cluster.problems import Problem, Severity
from polyplane.cluster.sources.kubernetes.connection import TRANSPORT_ERRORS, ApiStatus
from polyplane.cluster.sources.kubernetes.resources import Resource
from polyplane.hookspecs import Followed, hookimpl
from polyplane.observers.kubernetes import RETRY, SPREAD, Writer, read_options

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.events")

#: Seconds between two sayings of the same; Events live for an hour by default (kube-apiserver --event-ttl).
REPEAT: Final = 1800.0
#: Objects an agent says something about at most: a broken operator may write thousands.
MAX_NOTES: Final = 200
#: The API refuses longer ones.
_NOTE_LIMIT: Final = 1024
_CONTROLLER: Final = "polyplane.dev/agent"


class Note(NamedTuple):
    """What is said about an object."""

    key: ObjectKey
    reason: str
    text: str

    @property
    def name(self) -> str:
        """The Event's name: the same on every node."""
        digest = hashlib.blake2b(f"{self.key!r} {self.reason} {self.text}".encode(), digest_size=8).hexdigest()
        return f"{self.key.name[:230]}.{digest}"


class KubernetesEventsObserver:
    """Options: ``kubeconfig`` and ``context`` as of the source, and ``spread``, ``repeat`` and ``retry`` in seconds."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Read the configuration of the API server.

        :raises ConfigError: an unknown option, a bad value, or no usable configuration
        """
        self._connection, seconds = read_options("kubernetes-events", options, {"spread": SPREAD, "repeat": REPEAT, "retry": RETRY})
        self._repeat, self._retry = seconds["repeat"], seconds["retry"]
        self._writer = Writer("polyplane-events", self._tell, seconds["spread"])
        self._instance = socket.gethostname()[:128] or "unknown"
        self._paths: dict[tuple[str, str], str | None] = {}
        self._wanted: frozenset[Note] = frozenset()

    @hookimpl
    def polyplane_followed(self, followed: Followed) -> None:
        """Take over what is wrong now."""
        if not followed.in_sync:
            return
        before, self._wanted = self._wanted, frozenset(_notes(followed)[:MAX_NOTES])
        if self._wanted != before:
            self._writer.update(self._wanted, self._wanted - before)

    def _tell(self, note: Note) -> float:
        try:
            self._say(note)
        except ApiStatus as status:
            if status.code != 409:
                hint = "; allow the agent to create events.k8s.io Events" if status.code == 403 else ""
                _warn(note, f"{status}{hint}")
            # What the server refuses it refuses again; what it cannot do now it can later.
            if status.code == 429 or status.code >= 500:
                return self._retry
        except TRANSPORT_ERRORS as error:
            _warn(note, str(error))
            return self._retry
        return self._repeat

    def _say(self, note: Note) -> None:
        namespace = note.key.namespace or "default"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": note.name, "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning",
            "reason": note.reason,
            "action": "Enforce",
            "note": note.text[:_NOTE_LIMIT],
            "regarding": self._reference(note.key),
            "reportingController": _CONTROLLER,
            "reportingInstance": self._instance,
        }
        self._connection.request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body=body)

    def _reference(self, key: ObjectKey) -> dict[str, Any]:
        """Return a reference to the object; with its uid, without which ``kubectl describe`` does not show the Event."""
        reference = {"apiVersion": key.api_version, "kind": key.kind, "namespace": key.namespace, "name": key.name}
        kind = key.api_version, key.kind
        if kind not in self._paths:
            self._paths[kind] = Resource(api_version=key.api_version, kind=key.kind).find(self._connection)
        if (path := self._paths[kind]) is None:
            return reference
        group, _, plural = path.rpartition("/")
        inside = f"/namespaces/{key.namespace}" if key.namespace else ""
        found = msgspec.json.decode(self._connection.request("GET", f"{group}{inside}/{plural}/{key.name}"), type=_Identified)
        return {**reference, "uid": found.metadata.uid}


def _warn(note: Note, error: str) -> None:
    _log.warning("event not written, another try follows", object=str(note.key), reason=note.reason, error=error)


class _Uid(msgspec.Struct):
    uid: str = ""


class _Identified(msgspec.Struct):
    metadata: _Uid = msgspec.field(default_factory=_Uid)


def _reason(problem: Problem) -> str:
    if problem.fails_closed:
        return "PolicyUnsupported"
    return "PolicyRejected" if problem.severity is Severity.ERROR else "PolicyWarning"


def _notes(followed: Followed) -> list[Note]:
    """Return what there is to say, in a fixed order."""
    notes = [
        Note(
            problem.key,
            _reason(problem),
            "; ".join(filter(None, (problem.message, problem.remedy, problem.consequence))),
        )
        for problem in followed.problems.values()
        if problem.key is not None and problem.key.api_version != "v1"
    ]
    notes += [
        Note(key, "PolicyUnsupported", f"this dataplane cannot enforce {', '.join(reasons)}; the traffic concerned is denied")
        for key, reasons in followed.unsupported.items()
    ]
    return sorted(notes)
