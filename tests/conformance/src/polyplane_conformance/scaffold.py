"""`scaffold`: a complete distribution with a backend that lacks nothing but its dataplane, for ``new-backend``.

The files are in ``template/``; ``MODULE`` in a path and ``%name%``, ``%module%``, ``%Class%`` in a text are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX: Final = ".tmpl"


class ScaffoldError(ValueError):
    """A distribution cannot be scaffolded; the message says why and what to do."""


def template(name: str) -> dict[str, str]:
    """Return the files of a new backend's distribution: path below its folder to text.

    :raises ScaffoldError: for a name that cannot be one of a distribution and a module
    """
    if not _NAME.fullmatch(name):
        raise ScaffoldError(f"{name!r} cannot name a backend; use small letters, digits and single dashes, as in my-dataplane")
    module = f"polyplane_{name.replace('-', '_')}"
    words = {"%name%": name, "%module%": module, "%Class%": f"{''.join(part.capitalize() for part in name.split('-'))}Backend"}

    def fill(text: str) -> str:
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    found = _walk(files("polyplane_conformance") / "template", "")
    return {path.removesuffix(_SUFFIX).replace("MODULE", module): fill(text) for path, text in found}


def _walk(folder: Traversable, below: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{below}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{below}{entry.name}", entry.read_text(encoding="utf-8")


def scaffold(name: str, folder: Path) -> list[Path]:
    """Write a new backend's distribution into a folder, which must not exist or be empty; return the files.

    :raises ScaffoldError: for an unusable name, or when the folder holds something
    :raises OSError: when it cannot be written
    """
    texts = template(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ScaffoldError(f"{folder} is already there and not empty; choose another with --directory")
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return [folder / path for path in texts]
