"""A network namespace for one test."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

from polyplane_iptables.backend import IptablesBackend
from polyplane_iptables.kernel import Runner


class Namespace:
    """A network namespace of our own, with tools run inside it; each has a lock file of its own."""

    def __init__(self, name: str, variant: str, lock_file: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        self.variant = variant
        self.lock_file = lock_file

    @property
    def options(self) -> Mapping[str, object]:
        return {"netns": self.path, "variant": self.variant, "lock_file": self.lock_file, "lock_wait": 2}

    def backend(self, runner: Runner | None = None, **more: object) -> IptablesBackend:
        return IptablesBackend({**self.options, **more}, runner=runner)

    def run(self, *command: str, text: str | None = None) -> str:
        argv = ["ip", "netns", "exec", self.name, *command]
        env = {**os.environ, "XTABLES_LOCKFILE": self.lock_file}
        done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False, env=env)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def iptables(self, *arguments: str, family: int = 4, variant: str = "") -> str:
        program = "iptables" if family == 4 else "ip6tables"
        return self.run(f"{program}-{variant or self.variant}", "-w", "5", *arguments)

    def rules(self, *, variant: str = "", counters: bool = False) -> str:
        """Everything that iptables and ipset show, without what changes by itself."""
        parts = [
            self.run(f"{program}-{variant or self.variant}-save", *(["-c"] if counters else [])) for program in ("iptables", "ip6tables")
        ]
        text = "".join(parts) + self.run("ipset", "save")
        return re.sub(r"^#.*\n|\[\d+:\d+\]| initval \S+| hashsize \d+", "", text, flags=re.MULTILINE)
