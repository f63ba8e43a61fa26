"""The cluster objects of one manifest file: identities, lists taken apart, and what has no identity reported. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from polyplane.cluster.fields import shown, type_name
from polyplane.cluster.lines import Lines
from polyplane.cluster.metadata import DEFAULT_NAMESPACE
from polyplane.cluster.model import ObjectKey
from polyplane.cluster.sources.documents import Document, Unreadable, read_documents

#: Kinds that live in no namespace, of those that anything here reads or reports. The store corrects this for its dialects' kinds.
_CLUSTER_SCOPED: Final = frozenset({"Namespace", "Node"})
#: Kinds of which a directory may hold so many that their lines would cost more than they help.
_MANY: Final = frozenset({"Pod", "Namespace", "Node"})
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Found:
    """One object of a file, its place in words, and where its parts are, unless it is of a kind that there are many of."""

    key: ObjectKey
    raw: Mapping[str, Any]
    where: str
    lines: Lines | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something in a file that gives no object: its place, what is wrong, and what to do."""

    where: str
    problem: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What one file says."""

    found: tuple[Found, ...] = ()
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a file one looks; printed as ``web.yaml, document 2, item 3, line 14``."""

    path: str
    document: int
    line: int
    items: tuple[int, ...] = ()

    def __str__(self) -> str:
        document = [f"document {self.document}"] if self.document else []
        return ", ".join([self.path, *document, *(f"item {item}" for item in self.items), f"line {self.line}"])


def read_contents(path: str, content: bytes) -> Contents:
    """Read the objects of one file; ``path`` names it in messages, and its ending tells JSON from YAML."""
    collector = _Collector()
    for document in read_documents(content, is_json=path.lower().endswith(".json")):
        place = _Place(path, document.number, document.line)
        match document:
            case Unreadable():
                collector.trouble(place, document.problem)
            case Document():
                collector.collect(document.value, place, document.lines)
    return Contents(tuple(collector.found), tuple(collector.troubles))


class _Collector:
    """Gathers what the documents of one file give."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.troubles: list[Trouble] = []

    def trouble(self, place: _Place, problem: str) -> None:
        self.troubles.append(Trouble(str(place), problem))

    def collect(self, value: Any, place: _Place, lines: Lines, inherited: Mapping[str, str] = _NOTHING) -> None:
        """Add the object that ``value`` is, or those it lists.

        ``inherited``: apiVersion and kind from the typed list it stands in.
        """
        if not isinstance(value, Mapping):
            self.trouble(place, f"is {type_name(value)}, not an object; write apiVersion, kind and metadata")
            return
        raw = {**inherited, **{key: item for key, item in value.items() if item is not None or key not in inherited}}
        kind = raw.get("kind")
        if isinstance(kind, str) and (kind == "List" or (kind.endswith("List") and "items" in raw)):
            self._collect_list(raw, kind, place, lines)
            return
        key = _identify(raw)
        if isinstance(key, str):
            self.trouble(place, key)
        else:
            self.found.append(Found(key, raw, str(place), None if kind in _MANY else lines))

    def _collect_list(self, raw: Mapping[str, Any], kind: str, place: _Place, lines: Lines) -> None:
        items = raw.get("items")
        if items is None:
            return
        if not isinstance(items, list):
            self.trouble(place, f"{kind}: items must be a list, not {type_name(items)}; put '- ' before each item")
            return
        inherited: dict[str, str] = {}
        if kind != "List":
            # The items of a typed list, as API servers print them, leave out what the list says.
            inherited["kind"] = kind.removesuffix("List")
            if isinstance(raw.get("apiVersion"), str):
                inherited["apiVersion"] = raw["apiVersion"]
        for index, item in enumerate(items):
            item_lines = lines.find("items", str(index)) or Lines((place.line, None))
            self.collect(item, _Place(place.path, place.document, item_lines.line, (*place.items, index + 1)), item_lines, inherited)


def _identify(raw: Mapping[str, Any]) -> ObjectKey | str:
    """Return the object's key, or what keeps it from having one."""
    api_version, kind, metadata = raw.get("apiVersion"), raw.get("kind"), raw.get("metadata")
    not_ours = "write it, or move the file elsewhere if it is no manifest"
    if not isinstance(api_version, str) or not api_version:
        return _missing("apiVersion", api_version, not_ours)
    if not isinstance(kind, str) or not kind:
        return _missing("kind", kind, not_ours)
    if not isinstance(metadata, Mapping):
        return _missing(f"{kind}: metadata", metadata, "write metadata with a name")
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or not name:
        generated = name is None and "generateName" in metadata
        return _missing(
            f"{kind}: metadata.name", name, "generateName needs an API server, write name" if generated else "give the object a name"
        )
    if not isinstance(namespace, str | None):
        return f"{kind} {name}: metadata.namespace must be a string, not {type_name(namespace)} ({shown(namespace)}); put it into quotes"
    return ObjectKey(api_version, kind, "" if kind in _CLUSTER_SCOPED else namespace or DEFAULT_NAMESPACE, name)


def _missing(field: str, value: object, remedy: str) -> str:
    if value is None or value == "":
        return f"{field} is missing; {remedy}"
    return f"{field} has the wrong type, {type_name(value)} ({shown(value)}); {remedy}"
