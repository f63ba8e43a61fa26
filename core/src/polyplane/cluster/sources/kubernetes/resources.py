"""`Resource`: a kind to follow, and where the API server has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from polyplane.cluster.model import Dialect
from polyplane.cluster.sources.kubernetes.connection import ApiStatus, Connection, decode
from polyplane.cluster.sources.kubernetes.shapes import SHAPES, ApiGroups, ApiResources

#: Pods that have finished have no address any more, so the server need not send them: a cluster may keep thousands.
_NOT_FINISHED: Final = "status.phase!=Succeeded,status.phase!=Failed"
#: Names in URLs of the kinds that every server has. Asking for them would be one request more, and a server that denies to
#: know them is broken, not without policies.
_BUILT_IN: Final = {
    ("v1", "Pod"): "pods",
    ("v1", "Namespace"): "namespaces",
    ("v1", "Node"): "nodes",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of object: ``built_in`` ones exist on every server, others when their definition has been installed.

    ``shape`` is the msgspec type of an object, None for all fields; ``selector`` a field selector that the server applies.
    """

    api_version: str
    kind: str
    shape: type[Any] | None = None
    selector: str = ""

    @property
    def built_in(self) -> bool:
        """Whether every server has it."""
        return (self.api_version, self.kind) in _BUILT_IN

    @property
    def group_path(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind}"

    def find(self, connection: Connection) -> str | None:
        """Return the path of its objects; None when the server does not have it.

        :raises ApiStatus: the server refuses to say
        :raises urllib3.exceptions.HTTPError: it cannot be reached
        """
        if self.built_in:
            return f"{self.group_path}/{_BUILT_IN[self.api_version, self.kind]}"
        try:
            answer: ApiResources = decode(connection.request("GET", self.group_path), ApiResources)
        except ApiStatus as status:
            # Discovery answers 404 in plain text for a group it does not know, and so does any broken proxy in between. Taking
            # that at its word would drop policies, so the server must say itself that it does not serve the group.
            if status.code == 404 and self.api_version not in _served(connection):
                return None
            raise
        for found in answer.resources or ():
            if found.kind == self.kind and "/" not in found.name and {"list", "watch"} <= set(found.verbs or ()):
                return f"{self.group_path}/{found.name}"
        return None


def _served(connection: Connection) -> frozenset[str]:
    """Return the groups with versions that the server says it serves."""
    answer: ApiGroups = decode(connection.request("GET", "/apis"), ApiGroups)
    return frozenset(version.group_version for group in answer.groups for version in group.versions or ())


def resources(dialects: Iterable[Dialect]) -> list[Resource]:
    """Return what to follow: pods, namespaces, nodes and the policies of these APIs."""
    plain = [
        Resource(api_version="v1", kind=kind, shape=shape, selector=_NOT_FINISHED if kind == "Pod" else "")
        for kind, shape in SHAPES.items()
    ]
    return [*plain, *(Resource(api_version=dialect.api_version, kind=dialect.kind) for dialect in dialects)]
