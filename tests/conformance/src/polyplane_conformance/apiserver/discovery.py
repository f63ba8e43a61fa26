"""What the server says it has: versions, groups, kinds."""

from __future__ import annotations

from polyplane_conformance.apiserver.cluster import Cluster, Kind, Raw

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def answer(cluster: Cluster, parts: list[str]) -> Raw | None:
    """Return the answer to a discovery request, None for any other path."""
    match parts:
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.2-polyplane"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(cluster)}
        case ["api", version]:
            return _resources(cluster, version)
        case ["apis", group, version]:
            return _resources(cluster, f"{group}/{version}")
        case _:
            return None


def _groups(cluster: Cluster) -> list[Raw]:
    versions: dict[str, list[str]] = {}
    for kind in cluster.kinds:
        group, slash, version = kind.api_version.partition("/")
        if slash and version not in versions.setdefault(group, []):
            versions[group].append(version)
    return [
        {
            "name": group,
            "versions": [{"groupVersion": f"{group}/{version}", "version": version} for version in known],
            "preferredVersion": {"groupVersion": f"{group}/{known[0]}", "version": known[0]},
        }
        for group, known in versions.items()
    ]


def _resources(cluster: Cluster, api_version: str) -> Raw | None:
    kinds: list[Kind] = [kind for kind in cluster.kinds if kind.api_version == api_version]
    if not kinds:
        return None
    found = [
        {"name": kind.plural, "singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind, "verbs": _VERBS}
        for kind in kinds
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}
