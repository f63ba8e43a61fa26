"""The agent in a process of its own, as `polyplane run` has it, that also says what each apply did: one JSON object a line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from typing import Any

from polyplane import logs
from polyplane.agent import Agent
from polyplane.config import Config, LogFormat, LogLevel
from polyplane.hookspecs import Applied, hookimpl


class Reporter:
    """A wrapper around the backend that reports when an apply begins, and when it is done."""

    @hookimpl(wrapper=True)
    def polyplane_apply(self) -> Generator[None, Applied, Applied]:
        """Let the backend apply; say when it began, when it was done, what it was and how long it took."""
        began = time.monotonic()
        _say({"begun": began})
        result = yield
        now = time.monotonic()
        _say({"at": now, "seconds": now - began, "operations": result.operations})
        return result


def _say(fact: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the agent with the configuration given as JSON on the command line, until it is stopped."""
    logs.configure(LogLevel.WARNING, LogFormat.TEXT)
    given: dict[str, Any] = json.loads(sys.argv[1])
    config = Config(source="kubernetes", locate=(), detect_node_addresses=False, audit_interval=0, **given)
    Agent(config, wrappers=[Reporter()]).run()


if __name__ == "__main__":
    main()
