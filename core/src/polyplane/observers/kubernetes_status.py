"""`KubernetesStatusObserver`: writes into the status of policies for administrators whether polyplane accepts them.

Whether an object is accepted depends on the object alone, so all agents of a cluster say the same, and no node leads: each one
reads the object first and writes only when its condition is missing or says something else. Conditions of others are kept. What
only the dataplane of some node cannot do is no matter of the object; it is told by Events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from polyplane.cluster.model import ObjectKey
from polyplane.cluster.problems import Severity
from polyplane.cluster.sources.kubernetes.connection import TRANSPORT_ERRORS, ApiStatus
from polyplane.cluster.sources.kubernetes.resources import Resource
from polyplane.hookspecs import Followed, hookimpl
from polyplane.observers.kubernetes import RETRY, SPREAD, Writer, read_options

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.status")

#: The condition's type; the domain keeps it apart from those of other implementations.
CONDITION: Final = "polyplane.dev/Accepted"
#: API versions whose objects have conditions in their status.
API_VERSIONS: Final = frozenset({"policy.networking.k8s.io/v1alpha1", "policy.networking.k8s.io/v1alpha2"})
#: The API refuses longer messages.
_MESSAGE_LIMIT: Final = 32768


class Verdict(NamedTuple):
    """What the condition says: ``reason`` is Accepted, Unsupported (in force, but some rule fails closed) or Invalid (not in force)."""

    accepted: bool
    reason: str
    message: str


ACCEPTED: Final = Verdict(accepted=True, reason="Accepted", message="")


class KubernetesStatusObserver:
    """Options: ``kubeconfig`` and ``context`` as of the source, and ``spread`` and ``retry`` in seconds."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Read the configuration of the API server.

        :raises ConfigError: an unknown option, a bad value, or no usable configuration
        """
        self._connection, seconds = read_options("kubernetes-status", options, {"spread": SPREAD, "retry": RETRY})
        self._retry = seconds["retry"]
        self._writer = Writer("polyplane-status", self._tell, seconds["spread"])
        self._wanted: dict[ObjectKey, Verdict] = {}

    @hookimpl
    def polyplane_followed(self, followed: Followed) -> None:
        """Take over what is accepted now, and what is not."""
        if not followed.in_sync:
            return
        before, self._wanted = self._wanted, verdicts(followed)
        if self._wanted != before:
            self._writer.update(self._wanted, [key for key, verdict in self._wanted.items() if before.get(key) != verdict])

    def _tell(self, key: ObjectKey) -> float | None:
        verdict = self._wanted.get(key)
        if verdict is None:
            return None
        try:
            self._write(key, verdict)
        except ApiStatus as status:
            if status.code == 404:
                # The object is gone, and nobody has said so yet.
                return None
            if status.code != 409:
                hint = "; allow the agent to get these policies and to patch their status" if status.code == 403 else ""
                _warn(key, f"{status}{hint}")
        except TRANSPORT_ERRORS as error:
            _warn(key, str(error))
        else:
            return None
        return self._retry

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


def _warn(key: ObjectKey, error: str) -> None:
    _log.warning("status not written, another try follows", object=str(key), error=error)


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
