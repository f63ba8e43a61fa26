"""`Fault`: one wrong line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong then, in which file (below the package's parent), the text, which occurs there once, and its replacement.

    ``first`` is a pattern of scenarios or behaviours where it shows; should it not, the whole suite follows. ``says`` is what
    the failure must say, so that whoever reads it looks at the right policy and rule; empty where no policy decides.
    """

    name: str
    file: str
    old: str
    new: str
    first: str
    says: str = ""
