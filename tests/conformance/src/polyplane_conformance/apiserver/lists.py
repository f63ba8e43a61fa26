"""Lists: versions, pages, selectors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from polyplane_conformance.apiserver.cluster import BUILT_IN, Cluster, Kind, Refusal, Stored

#: Seconds that a server waits for a version that it has not reached.
FUTURE_WAIT: Final = 3.0


def version_of(text: str) -> int:
    """Read a resource version.

    :raises Refusal: 500, as a real server answers
    """
    if not text.isdecimal():
        raise Refusal(500, "InternalError", f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def selected(selector: str, raw: Mapping[str, Any]) -> bool:
    """Whether a field selector takes an object."""
    for term in filter(None, selector.split(",")):
        path, unequal, value = term.partition("!=")
        if not unequal:
            path, _, value = term.replace("==", "=").partition("=")
        found: Any = raw
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if ((found or "") == value) is bool(unequal):
            return False
    return True


def list_page(cluster: Cluster, kind: Kind, namespace: str, query: Mapping[str, str]) -> bytes:
    """Return a list, or a page of one, encoded.

    :raises Refusal: a version that is gone, not reached or nonsense
    """
    version = query.get("resourceVersion", "")
    limit = int(query.get("limit") or 0)
    if version and version_of(version) > cluster.revision:
        time.sleep(FUTURE_WAIT)
        raise Refusal(504, "Timeout", f"Too large resource version: {version}, current: {cluster.revision}")
    if version == "0":
        limit = 0  # answered from the server's cache, which knows no pages
    revision, after, chosen = _start(cluster, kind, query.get("continue", ""))
    chosen = [
        (name, stored)
        for name, stored in chosen
        if namespace in ("", name[0]) and (after is None or name > after) and selected(query.get("fieldSelector", ""), stored.raw)
    ]
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if limit and len(chosen) > limit:
        metadata["continue"] = f"{revision}:{'/'.join(chosen[limit - 1][0])}"
        metadata["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
    head = json.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}).encode()
    return head[:-1] + b', "items": [' + b",".join(_item(kind, stored) for _, stored in chosen) + b"]}"


def _start(cluster: Cluster, kind: Kind, token: str) -> tuple[int, tuple[str, str] | None, list[tuple[tuple[str, str], Stored]]]:
    if not token:
        revision, chosen = cluster.snapshot(kind)
        return revision, None, chosen
    at, _, last = token.partition(":")
    revision, chosen = cluster.snapshot(kind, int(at))
    namespace, _, name = last.rpartition("/")
    return revision, (namespace, name) if last else None, chosen


def _item(kind: Kind, stored: Stored) -> bytes:
    """Return the encoded item: those of built-in kinds do not say what they are."""
    return stored.bare if kind in BUILT_IN else stored.body
