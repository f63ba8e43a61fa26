"""Print every hook call, for whoever develops a plugin: ``POLYPLANE_TRACE_HOOKS=1``."""

from __future__ import annotations

import os
import reprlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pluggy

from polyplane.ir.delta import Delta
from polyplane.ir.program import Program

VARIABLE: Final = "POLYPLANE_TRACE_HOOKS"

_repr: Final = reprlib.Repr()
_repr.maxother = 200


def trace_if_asked(manager: pluggy.PluginManager, plugin: str) -> None:
    """Print each call of the manager's hooks to standard error, if the environment asks for it."""
    if os.environ.get(VARIABLE, "") in ("", "0"):
        return
    started: list[float] = []

    def before(hook: str, _implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]) -> None:
        started.append(time.perf_counter())
        shown = ", ".join(f"{name}={_brief(value)}" for name, value in arguments.items())
        sys.stderr.write(f"hook {plugin}: {hook}({shown})\n")

    def after(outcome: pluggy.Result[Any], hook: str, _implementations: Sequence[pluggy.HookImpl], _arguments: Mapping[str, Any]) -> None:
        milliseconds = (time.perf_counter() - started.pop()) * 1000
        error = outcome.exception
        result = _brief(outcome.get_result()) if error is None else f"raised {type(error).__name__}: {error}"
        sys.stderr.write(f"hook {plugin}: {hook} -> {result} ({milliseconds:.1f} ms)\n")

    manager.add_hookcall_monitoring(before, after)


def _brief(value: object) -> str:
    match value:
        case Delta():
            return f"<delta {value.base.revision} -> {value.target.revision}: {len(value.operations)} operations>"
        case Program():
            return f"<program {value.revision}: {len(value.endpoints)} endpoints>"
        case _:
            return _repr.repr(value)
