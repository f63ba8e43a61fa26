"""Finding plugins by their announcements, and importing the one that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stevedore.driver import DriverManager
from stevedore.exception import MultipleMatches, NoMatches
from stevedore.extension import error_on_conflict

from polyplane.errors import PluginConflict, PluginLoadError, PluginNotFound, PolyplaneError


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PluginInfo:
    """An announced plugin, not yet imported. ``value`` is its place, ``module:attribute``."""

    group: str
    name: str
    value: str
    distribution: str
    version: str


def list_plugins(group: str) -> list[PluginInfo]:
    """Return what installed distributions announce in the group, sorted by name; imports nothing.

    A name that two distributions claim appears twice. The same distribution seen twice (an editable install beside its
    checkout) does not.
    """
    # Not through stevedore: its cached entry points have lost their distribution.
    return sorted({_info(group, entry_point) for entry_point in entry_points(group=group)})


def _info(group: str, entry_point: EntryPoint) -> PluginInfo:
    distribution = entry_point.dist
    return PluginInfo(
        group=group,
        name=entry_point.name,
        value=entry_point.value,
        distribution="unknown" if distribution is None else distribution.name,
        version="" if distribution is None else distribution.version,
    )


def find(group: str, name: str) -> PluginInfo:
    """Return the one announcement of the name.

    :raises PluginNotFound: nobody announces it
    :raises PluginConflict: several distributions do
    """
    announced = list_plugins(group)
    claims = [info for info in announced if info.name == name]
    if not claims:
        raise PluginNotFound(group=group, name=name, installed=tuple(sorted({info.name for info in announced})))
    if len(claims) > 1:
        raise PluginConflict(group=group, name=name, distributions=tuple(f"{info.distribution} {info.version}" for info in claims))
    return claims[0]


def load(group: str, name: str, options: Mapping[str, object] | None = None) -> object:
    """Import and construct the named plugin, and no other; ``options`` None constructs it without an argument.

    :raises PluginNotFound: no distribution announces it
    :raises PluginConflict: several do
    :raises PluginLoadError: its import or its constructor fails
    :raises ConfigError: it refuses its options
    """
    info = find(group, name)
    arguments = () if options is None else (options,)
    try:
        manager: DriverManager[Any] = DriverManager(
            group, name, invoke_on_load=True, invoke_args=arguments, conflict_resolver=error_on_conflict
        )
    except PolyplaneError:
        raise
    except (NoMatches, MultipleMatches) as error:
        # The metadata changed under our feet, or stevedore's cache on disk is older than it.
        reason = f"{error}; if it was installed just now, remove ~/.cache/python-entrypoints"
        raise PluginLoadError(group=group, name=name, distribution=info.distribution, reason=reason) from error
    except Exception as error:
        reason = f"{info.value}: {type(error).__name__}: {error}"
        raise PluginLoadError(group=group, name=name, distribution=f"{info.distribution} {info.version}", reason=reason) from error
    plugin: object = manager.extensions[0].obj
    return plugin
