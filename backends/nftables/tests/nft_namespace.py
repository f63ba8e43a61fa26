"""A network namespace for one test."""

from __future__ import annotations

import subprocess


class Namespace:
    """A network namespace of our own, and nft's program inside it: another reader than the backend's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"

    def run(self, *command: str, text: str | None = None) -> str:
        done = subprocess.run(["ip", "netns", "exec", self.name, *command], input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def nft(self, text: str) -> str:
        return self.run("nft", "-f", "-", text=text)

    def ruleset(self) -> str:
        return self.run("nft", "list", "ruleset")
