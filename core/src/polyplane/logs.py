"""How the agent's log looks: structlog to standard error, at a level that may change while running."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from polyplane.config import LogFormat, LogLevel


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
