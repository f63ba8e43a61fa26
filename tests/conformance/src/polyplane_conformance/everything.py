"""The whole suite in one line of a test module of one's own::

    from polyplane_conformance.everything import *

Every test is known here by the name of its module and its own: ``test_netns_scenario``. They are the suite's tests themselves;
what is on trial is chosen by the options or the settings ``polyplane_backends`` and ``polyplane_options`` of pytest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from polyplane_conformance import suite


def _marks_of(module: ModuleType) -> Iterable[Any]:
    marks = getattr(module, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


def _tests() -> Iterator[tuple[str, Any]]:
    """Each test by its new name, carrying the marks that its module has."""
    for found in iter_modules(suite.__path__, f"{suite.__name__}."):
        module = import_module(found.name)
        topic = found.name.rpartition(".")[2]
        for name, test in vars(module).items():
            if name.startswith("test_"):
                for mark in _marks_of(module):
                    mark(test)
                yield f"{topic}_{name.removeprefix('test_')}", test


globals().update(_tests())
__all__ = [name for name in globals() if name.startswith("test_")]
