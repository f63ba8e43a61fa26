"""Plugins: stevedore finds the code, pluggy makes the calls, and here they meet.

Nothing else in polyplane touches a plugin manager. `load` brings in exactly the plugin that was asked for and turns what can go
wrong into four different errors; the facades `Dataplane`, `Source` and `Observers` are the only callers of hooks. With
``POLYPLANE_TRACE_HOOKS=1`` in the environment every hook call is printed to standard error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from polyplane.cluster.model import Dialect
from polyplane.errors import PluginContractError
from polyplane.hookspecs import BACKENDS, DIALECTS, OBSERVERS, SOURCES, DialectHooks
from polyplane.plugins.dataplane import Dataplane
from polyplane.plugins.discovery import PluginInfo, find, list_plugins, load
from polyplane.plugins.managers import make_manager, require_hooks
from polyplane.plugins.observers import Observers
from polyplane.plugins.source import Source

__all__ = [
    "Dataplane",
    "Observers",
    "PluginInfo",
    "Source",
    "dialects",
    "find",
    "list_plugins",
    "load",
    "load_backend",
    "load_observers",
    "load_source",
]


def load_backend(name: str, options: Mapping[str, object], *, wrappers: Iterable[object] = ()) -> Dataplane:
    """Load the named backend behind its facade."""
    return Dataplane(name, load(BACKENDS, name, options), wrappers=wrappers)


def load_source(name: str, options: Mapping[str, object]) -> Source:
    """Load the named source behind its facade."""
    return Source(name, load(SOURCES, name, options))


def load_observers(names: Iterable[str], options: Mapping[str, Mapping[str, object]]) -> Observers:
    """Load the named observers, in this order, each with its own options."""
    return Observers([(name, load(OBSERVERS, name, options.get(name, {}))) for name in names])


def dialects() -> tuple[Dialect, ...]:
    """Return the policy APIs of all installed dialect plugins.

    :raises PluginContractError: two plugins translate the same API
    """
    found: dict[tuple[str, str], tuple[str, Dialect]] = {}
    for name in sorted({info.name for info in list_plugins(DIALECTS)}):
        manager = make_manager(DialectHooks, name, load(DIALECTS, name))
        require_hooks(manager, name, ["polyplane_dialects"])
        for dialect in (dialect for answer in manager.hook.polyplane_dialects() for dialect in answer):
            if not isinstance(dialect, Dialect):
                raise PluginContractError(name=name, violation=f"polyplane_dialects gave {type(dialect).__name__} instead of Dialect")
            api = dialect.api_version, dialect.kind
            if api in found:
                raise PluginContractError(
                    name=name, violation=f"{' '.join(api)} is translated by dialect {found[api][0]!r} already; uninstall one of them"
                )
            found[api] = name, dialect
    return tuple(dialect for _, dialect in found.values())
