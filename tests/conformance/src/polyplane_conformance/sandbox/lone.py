"""`lone_node`: a node with nobody on it and nothing around it, where a whole sandbox would be too much."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from polyplane_conformance import netns
from polyplane_conformance.sandbox import namespaces
from polyplane_conformance.sandbox.bridges import BRIDGE, RUN_DIRECTORY, Switch
from polyplane_conformance.sandbox.processes import Daemons
from polyplane_conformance.sandbox.topology import Wiring


@dataclass(frozen=True, slots=True)
class LoneNode:
    """The name of its network namespace, and what a backend that runs in there must be told: its switch, if it has one."""

    name: str
    options: Mapping[str, str]

    @property
    def path(self) -> Path:
        """Of the namespace."""
        return netns.NETNS_DIRECTORY / self.name


@contextlib.contextmanager
def lone_node(what: str, wiring: Wiring = Wiring.ROUTED) -> Iterator[LoneNode]:
    """Make a namespace with its loopback up, with a switch of its own for pods on bridges; both are gone afterwards.

    :param what: the end of its name
    :raises SandboxError: without root, ``ip`` or, for a switch, Open vSwitch
    """
    name = f"{namespaces.new_prefix()}{what}"
    with contextlib.ExitStack() as stack:
        namespaces.create([name])
        stack.callback(netns.delete, name)
        namespaces.ip_batch(name, ["link set lo up"])
        node = LoneNode(name, {})
        if wiring is Wiring.BRIDGE:
            directory = RUN_DIRECTORY / name  # a socket's path must be short
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            daemons = Daemons()
            stack.callback(daemons.close)
            Switch(node.path, directory, daemons).start()
            node = LoneNode(name, {"bridge": BRIDGE, "run_dir": str(directory)})
        yield node
