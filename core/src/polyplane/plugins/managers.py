"""A plugin manager for each plugin, with its hooks and their answers checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pluggy

from polyplane.errors import PluginContractError
from polyplane.hookspecs import OPTIONAL, PROJECT
from polyplane.hooktrace import trace_if_asked

_T = TypeVar("_T")


def make_manager(hooks: type, name: str, plugin: object, wrappers: Iterable[object] = ()) -> pluggy.PluginManager:
    """Return a plugin manager with the specifications, the plugin and its wrappers, all checked."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, name)
        for wrapper in wrappers:
            manager.register(wrapper)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        violation = " ".join(str(error).split())
        raise PluginContractError(name=name, violation=violation) from error
    trace_if_asked(manager, name)
    return manager


def require_hooks(manager: pluggy.PluginManager, name: str, hooks: Iterable[str]) -> None:
    """Check that exactly one plugin implements each hook: pluggy would answer None for a hook that nobody implements."""
    for hook in hooks:
        plain = implementations(manager, hook)
        if len(plain) != 1 and (plain or hook not in OPTIONAL):
            how = "does not implement" if not plain else f"has {len(plain)} implementations of"
            raise PluginContractError(name=name, violation=f"it {how} {hook}; each backend, source and dialect hook needs exactly one")


def implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    """Return who implements the hook, wrappers left out."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return [implementation for implementation in caller.get_hookimpls() if not _wraps(implementation)]


def _wraps(implementation: pluggy.HookImpl) -> bool:
    return implementation.wrapper or implementation.hookwrapper


def specified(hooks: type) -> list[str]:
    """Return the names of the hooks that a class of specifications states."""
    return [name for name in vars(hooks) if name.startswith("polyplane_")]


def typed(name: str, hook: str, answer: object, wanted: type[_T]) -> _T:
    """Return a plugin's answer.

    :raises PluginContractError: it is of another type than the specification says
    """
    if not isinstance(answer, wanted):
        raise PluginContractError(name=name, violation=f"{hook} gave {type(answer).__name__} instead of {wanted.__name__}")
    return answer
