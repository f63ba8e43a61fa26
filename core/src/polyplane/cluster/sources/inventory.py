"""`Inventory`: what a directory of manifests says as a whole, as a pure state machine over the contents of its files.

Two rules keep an accident from opening a cluster. While anything in a file cannot be read, every object the file gave before and
does not give now stays in force, flagged stale. And an object that two places define is taken from one of them, always the same,
and reported. Apart from what stays stale, the state depends only on the files' current contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from polyplane.cluster.model import ObjectKey, PutObject, RemoveObject, SourceEvent, SourceProblem
from polyplane.cluster.sources.objects import Contents, Found, Trouble, read_contents


@dataclass(frozen=True, slots=True)
class _File:
    """What one file says now, and the objects of earlier contents that are still held to."""

    digest: bytes
    contents: Contents
    kept: tuple[Found, ...] = ()


class Inventory:
    """Takes contents of files by path, gives the events that bring a store up to date."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._directory_troubles: dict[str, str] = {}
        self._given: dict[ObjectKey, Found] = {}
        self._reported: dict[str, SourceProblem] = {}
        self._touched = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The files it holds anything of."""
        return tuple(self._files)

    def gives_objects(self, path: str) -> bool:
        """Whether objects of this file are in force."""
        file = self._files.get(path)
        return file is not None and bool(file.contents.found or file.kept)

    def put(self, path: str, content: bytes) -> None:
        """Take in the content of a file."""
        digest = hashlib.blake2b(content).digest()
        old = self._files.get(path)
        if old is None or old.digest != digest:
            self._set(path, digest, read_contents(path, content))

    def unreadable(self, path: str, problem: str) -> None:
        """Take in that a file is there but cannot be read at all."""
        self._set(path, b"", Contents(troubles=(Trouble(path, problem),)))

    def _set(self, path: str, digest: bytes, contents: Contents) -> None:
        kept: tuple[Found, ...] = ()
        old = self._files.get(path)
        if old is not None and contents.troubles:
            now = {found.key for found in contents.found}
            earlier = {found.key: found for found in (*old.kept, *old.contents.found)}
            kept = tuple(found for key, found in earlier.items() if key not in now)
        new = _File(digest, contents, kept)
        if new != old:
            self._files[path] = new
            self._touched = True

    def remove(self, path: str) -> None:
        """Take in that a file is gone, and everything it gave with it."""
        if self._files.pop(path, None) is not None:
            self._touched = True

    def directory_troubles(self, troubles: dict[str, str]) -> None:
        """Take in what is wrong with directories, by path; replaces what was said before."""
        if troubles != self._directory_troubles:
            self._directory_troubles = dict(troubles)
            self._touched = True

    def events(self) -> list[SourceEvent]:
        """Return what has changed since the last call, in an order that does not depend on that of the changes."""
        if not self._touched:
            return []
        self._touched = False
        given, problems = self._merged()
        events: list[SourceEvent] = [
            PutObject(key=key, raw=found.raw, where=found.where, lines=found.lines)
            for key, found in given.items()
            if (known := self._given.get(key)) is not found and known != found
        ]
        events += [RemoveObject(key) for key in self._given if key not in given]
        events += [SourceProblem(where=where, problem=None) for where in self._reported if where not in problems]
        events += [problem for where, problem in problems.items() if self._reported.get(where) != problem]
        self._given, self._reported = given, problems
        return events

    def _merged(self) -> tuple[dict[ObjectKey, Found], dict[str, SourceProblem]]:
        """Put the files together: one definition an object, and all problems."""
        files = sorted(self._files.items())
        problems = [SourceProblem(where=where, problem=text, stale=True) for where, text in sorted(self._directory_troubles.items())]
        given: dict[ObjectKey, Found] = {}
        for path, file in files:
            for found in file.contents.found:
                first = given.setdefault(found.key, found)
                if first is not found:
                    text = f"{found.key} is defined twice: here and in {first.where}, which is the one in force; remove one"
                    problems.append(SourceProblem(where=found.where, problem=text))
            problems += _problems_of(path, file)
        # What is readable counts more than what is only remembered: an object may have moved out of a file that then broke.
        for _, file in files:
            for found in file.kept:
                given.setdefault(found.key, found)
        return given, _by_place(problems)


def _problems_of(path: str, file: _File) -> Iterable[SourceProblem]:
    for trouble in file.contents.troubles:
        yield SourceProblem(where=trouble.where, problem=trouble.problem, stale=bool(file.kept))
    if file.kept:
        names = ", ".join(str(found.key) for found in file.kept[:5])
        more = f" and {len(file.kept) - 5} more" if len(file.kept) > 5 else ""
        text = f"cannot be read completely, so what it gave before stays: {names}{more}; repair it, or remove the file to remove them"
        yield SourceProblem(where=path, problem=text, stale=True)


def _by_place(problems: Iterable[SourceProblem]) -> dict[str, SourceProblem]:
    """Index problems by place; several at one place (items on one line) become one."""
    result: dict[str, SourceProblem] = {}
    for problem in problems:
        other = result.get(problem.where)
        if other is not None:
            problem = replace(problem, problem=f"{other.problem}; also: {problem.problem}", stale=problem.stale or other.stale)  # noqa: PLW2901 - the loop's value is what is collected
        result[problem.where] = problem
    return result
