"""`Lines`: on which line of its file each part of an object begins, so that a message can lead to the field it is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: The line (from 1) on which a value, or its key, begins, and the same of its members by name and its items by place.
#: Plain tuples, because there is one for every value of a file.
Tree = tuple[int, "Mapping[str, Tree] | None"]

#: A member's name, or what stands in brackets: the place of an item, the key of an entry (``labels[app.kubernetes.io/name]``).
_STEP = re.compile(r"\[([^\]]*)\]|([^.\[]+)")


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of an object or of a part of one."""

    tree: Tree

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.tree[0]

    def find(self, *steps: str) -> Lines | None:
        """Return the lines of a part, None where there is none; ``steps`` are names of members and places of items."""
        here = self.tree
        for step in steps:
            inner = (here[1] or {}).get(step)
            if inner is None:
                return None
            here = inner
        return Lines(here)

    def of(self, path: str) -> int:
        """Return the line of a field (``spec.ingress[0].from``), or of the innermost part around it that is written."""
        here = self.tree
        for found in _STEP.finditer(path):
            inner = (here[1] or {}).get(found[1] if found[2] is None else found[2])
            if inner is None:
                break
            here = inner
        return here[0]
