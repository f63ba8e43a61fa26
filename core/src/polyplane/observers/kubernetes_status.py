"""`KubernetesStatusObserver`: writes into the status of policies for administrators whether polyplane accepts them.

Whether an object is accepted depends on the object alone, so all agents of a cluster say the same, and no node leads: each one
reads the object first and writes only when its condition is missing or says something else. Conditions of others are kept. What
only the dataplane of some node cannot do is no matter of the object; it is told by Events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from polyplane.cluster.model import ObjectKey
from polyplane.cluster.problems import Severity
from polyplane.cluster.sources.kubernetes.connection import TRANSPORT_ERRORS, ApiStatus, Connection
from polyplane.cluster.sources.kubernetes.resources import Resource
from polyplane.errors import ConfigError
from polyplane.hookspecs import Followed, hookimpl

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.status")

#: The condition's type; the domain keeps it apart from those of other implementations.
CONDITION: Final = "polyplane.dev/Accepted"
#: API versions whose objects have conditions in their status.
API_VERSIONS: Final = frozenset({"policy.networking.k8s.io/v1alpha1", "policy.networking.k8s.io/v1alpha2"})
#: Seconds over which the agents of a cluster spread their writes.
SPREAD: Final = 10.0
#: Seconds until a write that failed is tried again.
RETRY: Final = 30.0
#: The API refuses longer messages.
_MESSAGE_LIMIT: Final = 32768


class Verdict(NamedTuple):
    """What the condition says: ``reason`` is Accepted, Unsupported (in force, but some rule fails closed) or Invalid (not in force)."""

    accepted: bool
    reason: str
    message: str


ACCEPTED: Final = Verdict(accepted=True, reason="Accepted", message="")


class KubernetesStatusObserver:
    """Options: ``kubeconfig`` and ``context`` as of the source, and ``spread`` in seconds."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Read the configuration of the API server.

        :raises ConfigError: an unknown option, a bad value, or no usable configuration
        """
        texts: dict[str, str] = {}
        self._spread = SPREAD
        for name, value in options.items():
            if name == "spread" and isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                self._spread = float(value)
            elif name in {"kubeconfig", "context"} and isinstance(value, str) and value:
                texts[name] = value
            else:
                known = "there are kubeconfig and context (texts) and spread (seconds)"
                raise ConfigError(f"observer.kubernetes-status: option {name!r} is unknown or its value {value!r} is none; {known}")
        self._connection = Connection(**texts)
        self._random = Random()  # noqa: S311  # jitter is no secret
        self._changed = threading.Condition()
        self._wanted: dict[ObjectKey, Verdict] = {}
        #: Objects whose status is to be looked at, and when.
        self._due: dict[ObjectKey, float] = {}
        self._thread: threading.Thread | None = None

    @hookimpl
    def polyplane_followed(self, followed: Followed) -> None:
        """Take over what is accepted now, and what is not."""
        if not followed.in_sync:
            return
        wanted = verdicts(followed)
        with self._changed:
            now = time.monotonic()
            news = [key for key, verdict in wanted.items() if self._wanted.get(key) != verdict]
            self._due = {key: at for key, at in self._due.items() if key in wanted}
            self._due |= {key: now + self._spread * self._random.random() for key in news}
            self._wanted = wanted
            if news:
                self._changed.notify()
        if self._thread is None and news:
            self._thread = threading.Thread(target=self._run, name="polyplane-status", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Write what is due, for ever."""
        while True:
            with self._changed:
                key, at = min(self._due.items(), key=lambda item: item[1], default=(None, None))
                if key is None or at is None:
                    self._changed.wait()
                    continue
                if (pause := at - time.monotonic()) > 0:
                    self._changed.wait(pause)
                    continue
                del self._due[key]
                verdict = self._wanted[key]
            try:
                self._write(key, verdict)
            except ApiStatus as status:
                # 404: the object is gone, and nobody has said so yet.
                if status.code != 404:
                    hint = "; allow the agent to get these policies and to patch their status" if status.code == 403 else ""
                    self._again(key, f"{status}{hint}", quiet=status.code == 409)
            except TRANSPORT_ERRORS as error:
                self._again(key, str(error))

    def _again(self, key: ObjectKey, error: str, *, quiet: bool = False) -> None:
        if not quiet:
            _log.warning("status not written, another try follows", object=str(key), error=error)
        with self._changed:
            if key in self._wanted:
                self._due.setdefault(key, time.monotonic() + RETRY * self._random.uniform(0.8, 1.2))

    def _write(self, key: ObjectKey, verdict: Verdict) -> None:
        path = Resource(api_version=key.api_version, kind=key.kind).find(self._connection)
        if path is None:
            return
        found = msgspec.json.decode(self._connection.request("GET", f"{path}/{key.name}"), type=_Object)
        condition = {
            "type": CONDITION,
            "status": "True" if verdict.accepted else "False",
            "reason": verdict.reason,
            "message": verdict.message,
            "observedGeneration": found.metadata.generation,
        }
        conditions = (found.status or _Status()).conditions or []
        mine = next((one for one in conditions if one.get("type") == CONDITION), {})
        if all(mine.get(name) == value for name, value in condition.items()):
            return
        since = mine.get("lastTransitionTime") if mine.get("status") == condition["status"] else None
        condition["lastTransitionTime"] = since or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        others = [one for one in conditions if one.get("type") != CONDITION]
        body = {"metadata": {"resourceVersion": found.metadata.resource_version}, "status": {"conditions": [*others, condition]}}
        self._connection.request("PATCH", f"{path}/{key.name}/status", body=body, content_type="application/merge-patch+json")


class _Metadata(msgspec.Struct, rename="camel"):
    generation: int = 0
    resource_version: str = ""


class _Status(msgspec.Struct):
    conditions: list[dict[str, Any]] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata
    status: _Status | None = None


def verdicts(followed: Followed) -> dict[ObjectKey, Verdict]:
    """Return what there is to say about each object that has conditions."""
    found = {key: ACCEPTED for key in followed.policies if key.api_version in API_VERSIONS}
    for problem in followed.problems.values():
        key = problem.key
        if key is None or key.api_version not in API_VERSIONS or problem.severity is not Severity.ERROR:
            continue
        text = "; ".join(filter(None, (problem.message, problem.remedy, problem.consequence)))
        before = found.get(key, ACCEPTED).message
        message = f"{before}\n{text}" if before else text
        reason = "Unsupported" if problem.fails_closed else "Invalid"
        found[key] = Verdict(accepted=False, reason=reason, message=message[:_MESSAGE_LIMIT])
    return found
