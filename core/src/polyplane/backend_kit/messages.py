"""`shorten`: what a tool complains about, in one line."""

from __future__ import annotations

from typing import Final

#: Tools repeat the line they complain about, and a line may hold thousands of elements.
_WIDTH: Final = 300
_LINES: Final = 4


def shorten(message: str, tool: str) -> str:
    """Return the first lines of a tool's complaint as one line of bounded length."""
    lines = [line[:_WIDTH] for line in message.strip().splitlines()[:_LINES]]
    return " | ".join(line.strip() for line in lines) or f"{tool} failed without a message"
