"""How the agent's log looks: structlog to standard error, at a level that may change while running."""

from __future__ import annotations

import contextlib
import logging
import sys

import structlog
from structlog.typing import Processor

from polyplane.config import LogFormat, LogLevel


class _StandardError:
    """Prints a finished line to whatever standard error is now. Losing a line is better than losing the agent over a closed pipe."""

    def msg(self, message: str) -> None:
        """Print the line."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    log = debug = info = warning = error = critical = exception = msg


def configure(level: LogLevel, form: LogFormat) -> None:
    """Set up all loggers of polyplane and its plugins; may be called again at any time."""
    terminal = sys.stderr.isatty()
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
    ]
    if form is LogFormat.JSON:
        processors += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    elif terminal:
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=False,
    )
