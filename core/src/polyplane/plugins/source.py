"""`Source`: where cluster objects come from, behind typed calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from polyplane.cluster.model import Dialect, SourceEvent
from polyplane.errors import PolyplaneError
from polyplane.hookspecs import SourceHooks
from polyplane.plugins.managers import make_manager, require_hooks, specified

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.plugins")


class Source:
    """Where cluster objects come from, typed: the only caller of source hooks. A context manager that stops it."""

    def __init__(self, name: str, plugin: object) -> None:
        """Register and check the plugin.

        :raises PluginContractError: hooks that are missing, misspelt or take unknown arguments
        """
        self.name = name
        self._manager = make_manager(SourceHooks, name, plugin)
        require_hooks(self._manager, name, specified(SourceHooks))

    def start(self, emit: Callable[[SourceEvent], None], dialects: Sequence[Dialect] = ()) -> None:
        """Begin to receive events through ``emit``, which is called from other threads.

        :param dialects: the policy APIs that are read

        :raises PolyplaneError: when the source cannot start
        """
        try:
            self._manager.hook.polyplane_source_start(emit=emit, dialects=dialects)
        except PolyplaneError:
            raise
        except Exception as error:
            raise PolyplaneError(f"source {self.name} does not start: {type(error).__name__}: {error}") from error

    def stop(self) -> None:
        """Receive no more events. A source that fails to stop is logged: whoever stops is on the way out."""
        try:
            self._manager.hook.polyplane_source_stop()
        except Exception:  # noqa: BLE001  # whatever it is, it must not hide why we stop
            _log.exception("source failed to stop", source=self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
