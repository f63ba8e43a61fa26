"""`RuleIds`: one 32-bit number for each rule of the API objects, the same on every node and after every restart.

A rule's id is a hash of what it is called (its origin), not of what it says: a changed rule keeps its id and its history.
Two names may hash alike: at 100,000 rules that is likelier than not. Then the name that sorts first keeps the hash and the
others are hashed again with a salt, so that ids depend on which names exist and not on the order in which they came.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterable


class RuleIds:
    """The registry of names and ids; names are counted, so that several users may hold one."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        #: Names by their unsalted hash; almost always one each.
        self._names: dict[int, list[str]] = {}

    def acquire(self, names: Iterable[str]) -> set[str]:
        """Take the names into use; return those already in use whose id has changed because of it."""
        moved: set[str] = set()
        for name in names:
            if name in self._users:
                self._users[name] += 1
                continue
            self._users[name] = 1
            sharing = self._names.setdefault(_hash(name), [])
            insort(sharing, name)
            moved.update(sharing[sharing.index(name) + 1 :])
        return moved

    def release(self, names: Iterable[str]) -> set[str]:
        """Give the names back; return those still in use whose id has changed because of it."""
        moved: set[str] = set()
        for name in names:
            self._users[name] -= 1
            if self._users[name]:
                continue
            del self._users[name]
            sharing = self._names[_hash(name)]
            position = sharing.index(name)
            del sharing[position]
            moved.update(sharing[position:])
            if not sharing:
                del self._names[_hash(name)]
        return moved & self._users.keys()

    def __getitem__(self, name: str) -> int:
        unsalted = _hash(name)
        rank = self._names[unsalted].index(name)
        if rank == 0:
            return unsalted
        salt = rank
        while (salted := _hash(name, salt)) in self._names:
            salt += 1
        return salted


def _hash(name: str, salt: int = 0) -> int:
    """1 to 2**32-1."""
    content = f"{salt}:{name}" if salt else name
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=4).digest(), "big") or 1
