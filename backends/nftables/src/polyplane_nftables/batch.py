"""`write_batch`: changes to the text of one atomic nft batch.

The kernel checks each command as it comes and makes all of them visible at once. So the order below is about references:
what is pointed to is added before and removed after what points to it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from polyplane_nftables.native import Changes, Native

#: Elements per command: keeps single lines of a dry run readable and nft's error messages short.
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """Text for nft, and how many native operations of which sort it holds."""

    text: str
    detail: dict[str, int]

    @property
    def operations(self) -> int:
        """Number of native operations: each chain, set, rule, element and flush counts one."""
        return sum(self.detail.values())


class _Writer:
    """Collects commands and counts what they do."""

    def __init__(self, table: str, changes: Changes) -> None:
        self.count: Final[Counter[str]] = Counter()
        self.lines: Final[list[str]] = []
        self._where: Final = f"inet {table}"
        self._chains: Final = sorted(changes.chains.items())
        self._kinds: Final = sorted(changes.kinds.items())
        self._elements: Final = sorted(changes.elements.items())
        self._vanishing: Final = {name for name, (_, kind) in self._kinds if kind is None}

    def create(self) -> None:
        """Add empty chains and sets."""
        for name, (old, new) in self._chains:
            if old is None and new is not None:
                self._say("chains", f"add chain {self._where} {name}" + (f" {{ {new.hook} }}" if new.hook else ""))
        for name, (_, kind) in self._kinds:
            if kind is not None:
                self._say("sets", f"add {kind.word} {self._where} {name} {{ {kind.definition} }}")

    def disconnect(self) -> None:
        """Take out all rules and elements that will not stay."""
        for name, (old, _) in self._chains:
            if old is not None and old.rules:
                self._say("flushes", f"flush chain {self._where} {name}")
        # Kernels before 6.4 count the references of a removed map's elements until the commit, so the map is emptied first.
        for name, (kind, _) in self._kinds:
            if kind is not None and name in self._vanishing:
                self._say("flushes", f"flush {kind.word} {self._where} {name}")
        for name, steps in self._elements:
            if name not in self._vanishing:
                self._change_elements("delete", name, [(key, old) for key, (old, _) in sorted(steps.items()) if old is not None])

    def connect(self) -> None:
        """Put in new elements and rules."""
        for name, steps in self._elements:
            self._change_elements("add", name, [(key, new) for key, (_, new) in sorted(steps.items()) if new is not None])
        for name, (_, new) in self._chains:
            for rule in new.rules if new is not None else ():
                self._say("rules", f"add rule {self._where} {name} {rule.full_text}")

    def destroy(self) -> None:
        """Delete sets and chains that nothing points to any more."""
        for name, (kind, _) in self._kinds:
            if kind is not None and name in self._vanishing:
                self._say("sets", f"delete {kind.word} {self._where} {name}")
        for name, (_, new) in self._chains:
            if new is None:
                self._say("chains", f"delete chain {self._where} {name}")

    def _change_elements(self, verb: str, name: str, elements: list[tuple[str, str]]) -> None:
        texts = [f"{key} : {value}" if value else key for key, value in elements]
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            self._say("elements", f"{verb} element {self._where} {name} {{ {', '.join(chunk)} }}", len(chunk))

    def _say(self, sort: str, command: str, number: int = 1) -> None:
        self.count[sort] += number
        self.lines.append(command)


def write_batch(table: str, changes: Changes) -> Batch:
    """Write the commands that make the changes in ``inet <table>``, which exists."""
    writer = _Writer(table, changes)
    writer.create()
    writer.disconnect()
    writer.connect()
    writer.destroy()
    return Batch("".join(f"{line}\n" for line in writer.lines), dict(writer.count))


def write_whole(table: str, wanted: Native, *, replace: bool) -> Batch:
    """Write the commands that create the whole table, in place of one that exists with ``replace``."""
    changes = Changes(
        chains={name: (None, chain) for name, chain in wanted.chains.items()},
        kinds={name: (None, kind) for name, kind in wanted.kinds.items()},
        elements={name: {key: (None, value) for key, value in elements.items()} for name, elements in wanted.elements.items()},
    )
    batch = write_batch(table, changes)
    head = (f"delete table inet {table}\n" if replace else "") + f"add table inet {table}\n"
    return Batch(head + batch.text, {"tables": 1 + replace, **batch.detail})
