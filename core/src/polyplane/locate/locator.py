"""`Locator`: what all ways know, put together, and told whenever it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from polyplane.compile.places import Place, Places
from polyplane.config import Config, Locate
from polyplane.ir.features import Vantage
from polyplane.locate.cni import CniWay
from polyplane.locate.kernel import KernelWay
from polyplane.locate.ovsdb import RUN_DIRECTORY, OvsdbWay
from polyplane.locate.way import Found, Way

#: What is right for backends that see packets there; results of network plugins tell names and addresses everywhere.
_AUTOMATIC: Final = {
    Vantage.DEVICES: frozenset({Locate.ROUTES, Locate.CNI}),
    Vantage.PORTS: frozenset({Locate.PORTS, Locate.CNI}),
    Vantage.SWITCH: frozenset({Locate.OVSDB, Locate.CNI}),
}


def put_together(all_found: Iterable[Found]) -> Places:
    """Return what the ways know together.

    A candidate becomes a pod's interface only when it is the only one that the backend sees under its own name: the bridge
    among a plugin's interfaces is none of a pod's, and neither is a port of a bridge to a backend that sees the bridge.
    """
    found = list(all_found)
    devices = frozenset[str]().union(*(one.devices for one in found))
    interfaces = {address: name for one in found for address, name in one.interfaces.items()}
    pods: dict[str, Place] = {}
    for one in found:
        for pod, place in one.pods.items():
            before = pods.get(pod, Place())
            fitting = [name for name in one.candidates.get(pod, ()) if name in devices]
            interface = place.interface or (fitting[0] if len(fitting) == 1 else None)
            pods[pod] = Place(interface or before.interface, place.addresses or before.addresses)
    return Places(interfaces=interfaces, pods=pods)


class Locator:
    """Follows all ways in threads of their own. A context manager."""

    def __init__(self, tell: Callable[[Places], None], ways: Sequence[Way]) -> None:
        """Prepare; ``tell`` is called from those threads, first when every way knows what there is."""
        self._tell = tell
        self._ways = ways
        self._lock = threading.Lock()
        self._told: Places | None = None

    def __enter__(self) -> Self:
        """Begin to follow, in the network namespace of the calling thread."""
        for way in self._ways:
            way.start(self._changed)
        return self

    def __exit__(self, *_: object) -> None:
        for way in self._ways:
            way.stop()

    def wait(self, seconds: float) -> list[str]:
        """Wait until every way has told what there is; return the names of those that have not."""
        deadline = time.monotonic() + seconds
        return [way.name for way in self._ways if not way.known.wait(max(0.0, deadline - time.monotonic()))]

    def _changed(self) -> None:
        with self._lock:
            places = put_together(way.found for way in self._ways)
            if places != self._told:
                self._told = places
                self._tell(places)


def make_locator(config: Config, vantage: Vantage, tell: Callable[[Places], None]) -> Locator | None:
    """Return the locator that the configuration asks for, None if it asks for none."""
    wanted = set(config.locate)
    if Locate.AUTO in wanted:
        wanted |= _AUTOMATIC[vantage]
    ways: list[Way] = []
    by_address = bool(wanted & {Locate.ROUTES, Locate.PORTS})
    if by_address or (Locate.CNI in wanted and Locate.OVSDB not in wanted):
        # A plugin's result names interfaces; the kernel, or else the switch, tells which of them are a pod's.
        ways.append(KernelWay(routes=by_address, ports=Locate.PORTS in wanted))
    if Locate.CNI in wanted:
        ways.append(CniWay(Path(config.cni_results)))
    if Locate.OVSDB in wanted:
        ways.append(OvsdbWay(config.ovsdb or _database_of(config)))
    return Locator(tell, ways) if ways else None


def _database_of(config: Config) -> str:
    """Return where the Open vSwitch that the backend drives keeps its database: both have to look at the same."""
    run_dir = config.backend_options.get(config.backend, {}).get("run_dir", RUN_DIRECTORY)
    return f"unix:{run_dir}/db.sock"
