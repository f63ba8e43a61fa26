"""`Decoder`: legacy tables by way of python-iptables, in a child process that may crash without harm.

It is a second pair of eyes: where it is installed, the audit looks through it, and falls back to ``iptables-legacy-save`` where it
fails. It never writes: see the README for why.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Final

import structlog

from polyplane.backend_kit.messages import shorten
from polyplane.backend_kit.namespaces import in_namespace
from polyplane_iptables.native import Chain, Filter
from polyplane_iptables.options import IptablesOptions

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.iptables")
#: It takes some 0.4 ms of CPU a rule, where iptables-save takes 0.01, and an audit is not worth more than a second of it.
MOST_RULES: Final = 2_000
_SECONDS: Final = 10.0
_MODULE: Final = "polyplane_iptables.second_look"


class Decoder:
    """Reads with python-iptables as long as it works; says once when it does not."""

    def __init__(self, options: IptablesOptions) -> None:
        self._options: Final = options
        self._complaint = ""

    @property
    def usable(self) -> bool:
        """Whether python-iptables is wanted and installed."""
        return self._options.second_look and find_spec("iptc") is not None

    def read(self, families: Iterable[int]) -> dict[int, Filter] | None:
        """Return our part of the families' filter tables, None (and a line in the log) if the child fails.

        To look at a table is to create it: ask for those only that are there.
        """
        argv = [sys.executable, "-m", _MODULE, *map(str, families)]

        def call() -> subprocess.CompletedProcess[str]:
            env = {**os.environ, "LC_ALL": "C"}
            return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_SECONDS, env=env)

        try:
            done = in_namespace(self._options.netns, call)
            if not done.returncode:
                return {int(family): filter_of(seen) for family, seen in json.loads(done.stdout).items()}
            problem = f"ended with status {done.returncode}: {shorten((done.stderr.splitlines() or [''])[-1], 'python-iptables')}"
        except subprocess.TimeoutExpired:
            problem = f"no end after {_SECONDS:.0f} s"
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            problem = f"cannot be understood: {error}"
        self.complain("python-iptables cannot read the legacy tables, iptables-legacy-save is used", problem)
        return None

    def complain(self, what: str, why: str) -> None:
        """Write a warning, once as long as it stays the same."""
        if why != self._complaint:
            _log.warning(what, reason=why)
        self._complaint = why


def filter_of(seen: Any) -> Filter:
    """Return what the child printed as a table in the words of iptables-save."""
    chains = {str(name): Chain(map(_text, rules)) for name, rules in seen["chains"].items()}
    jumps = {str(name): tuple((int(place), _text(rule)) for place, rule in some) for name, some in seen["jumps"].items()}
    return Filter(chains, jumps)


def _text(rule: list[list[str]]) -> str:
    return " ".join(shlex.join(option) for option in rule).replace("'!'", "!")
