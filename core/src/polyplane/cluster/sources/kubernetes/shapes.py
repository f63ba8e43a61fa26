"""What is decoded of each object: the fields that policy needs, as plain mappings, everything else skipped unread.

A field may be null wherever the server's own types allow it; a pod in a bookmark has ``"containers": null``. An object that
does not fit its shape is decoded whole, so that `polyplane.cluster.decode` can say which field is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypedDict

import msgspec

Raw = dict[str, Any]


class _Metadata(TypedDict, total=False):
    name: str | None
    namespace: str | None
    labels: dict[str, str | None] | None
    resourceVersion: str | None


class _PodMetadata(_Metadata, total=False):
    annotations: dict[str, str | None] | None


class _Port(TypedDict, total=False):
    name: str | None
    containerPort: int | None
    protocol: str | None


class _Container(TypedDict, total=False):
    ports: list[_Port | None] | None


class _PodSpec(TypedDict, total=False):
    nodeName: str | None
    hostNetwork: bool | None
    containers: list[_Container | None] | None
    initContainers: list[_Container | None] | None


class _PodIp(TypedDict, total=False):
    ip: str | None


class _PodStatus(TypedDict, total=False):
    phase: str | None
    podIP: str | None
    podIPs: list[_PodIp | None] | None


class _Pod(TypedDict, total=False):
    metadata: _PodMetadata
    spec: _PodSpec | None
    status: _PodStatus | None


class _Namespace(TypedDict, total=False):
    metadata: _Metadata


class _NodeAddress(TypedDict, total=False):
    type: str | None
    address: str | None


class _NodeStatus(TypedDict, total=False):
    addresses: list[_NodeAddress | None] | None


class _NodeSpec(TypedDict, total=False):
    podCIDR: str | None
    podCIDRs: list[str | None] | None


class _Node(TypedDict, total=False):
    metadata: _Metadata
    spec: _NodeSpec | None
    status: _NodeStatus | None


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class WatchEvent(msgspec.Struct):
    """One line of a watch; ``object`` is decoded, but for bookmarks and errors, which are no objects of the resource."""

    type: str
    object: Any


_ANYTHING: Final = msgspec.json.Decoder(dict[str, Any])


def decoder(shape: type[Any] | None) -> Callable[[msgspec.Raw], Raw]:
    """Return a function that decodes one object; ``shape`` None keeps every field.

    The function raises `msgspec.DecodeError` for what is no JSON object.
    """
    if shape is None:
        return _ANYTHING.decode
    typed = msgspec.json.Decoder(shape)

    def decode(data: msgspec.Raw) -> Raw:
        try:
            found: Raw = typed.decode(data)
        except msgspec.ValidationError:
            return _ANYTHING.decode(data)
        return found

    return decode


#: Types of events whose object is none of the resource's.
_OTHER_OBJECTS: Final = frozenset({"BOOKMARK", "ERROR"})


def event_decoder(shape: type[Any] | None) -> Callable[[bytes | bytearray], WatchEvent]:
    """Return a function that decodes one line of a watch, and its object with it: looking for the object's end first costs as much.

    The function raises `msgspec.DecodeError` for what is no event.
    """
    fields: list[tuple[str, Any]] = [("type", str), ("object", shape or dict[str, Any])]
    typed: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("_Event", fields))
    untyped = msgspec.json.Decoder(_RawEvent)
    one = decoder(shape)

    def decode(line: bytes | bytearray) -> WatchEvent:
        try:
            found: Any = typed.decode(line)
        except msgspec.ValidationError:
            raw = untyped.decode(line)
            return WatchEvent(raw.type, raw.object if raw.type in _OTHER_OBJECTS else one(raw.object))
        if found.type in _OTHER_OBJECTS:
            return WatchEvent(found.type, untyped.decode(line).object)
        return WatchEvent(found.type, found.object)

    return decode


#: Shapes of the kinds that are no policies, all of API version v1. Policies are read whole: every field of theirs counts.
SHAPES: Final[dict[str, type[Any]]] = {"Pod": _Pod, "Namespace": _Namespace, "Node": _Node}


class Meta(msgspec.Struct, rename="camel", gc=False):
    """``metadata`` as far as following a resource needs it."""

    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    annotations: dict[str, str | None] | None = None


class Head(msgspec.Struct, gc=False):
    """The metadata of any object."""

    metadata: Meta = msgspec.field(default_factory=Meta)


class ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    """``metadata`` of a list."""

    resource_version: str | None = None
    token: str | None = None


class Page(msgspec.Struct):
    """One page of a list; the items are not decoded yet."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] | None = None


class _ApiResource(msgspec.Struct):
    name: str = ""
    kind: str = ""
    verbs: list[str] | None = None


class ApiResources(msgspec.Struct):
    """What discovery says about a group and version."""

    resources: list[_ApiResource] | None = None


class _GroupVersion(msgspec.Struct, rename="camel"):
    group_version: str


class _ApiGroup(msgspec.Struct):
    versions: list[_GroupVersion] | None = None


class ApiGroups(msgspec.Struct):
    """All groups that a server has; it must say which, an empty answer is none."""

    groups: list[_ApiGroup]
