"""`CniWay`: the results of network plugins, which libcni keeps in a folder from the making of a pod's network to its end.

They name the pod, its addresses and the interfaces that were made for it, and they are written before the first of its
processes starts: earlier than the API server can tell anybody the address. Format: libcni's ``cniCacheV1``
(containernetworking/cni, libcni/api.go); Kubernetes' names of the arguments come from the container runtimes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog
import watchfiles

from polyplane.compile.places import Place
from polyplane.errors import InvalidProgram
from polyplane.ir.cidr import Cidr
from polyplane.locate.way import Found, Way

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.locate")

#: The interface that Kubernetes speaks of; further networks of a pod (Multus) are not subject to NetworkPolicy.
_POD_INTERFACE: Final = "eth0"
#: Longer files are no results: one with all it may hold has some kilobytes.
_MAX_SIZE: Final = 1 << 20
#: Seconds between looks that nothing asked for, between looks for a folder that is not there, and between signs of life.
_LOOK_ANYWAY: Final = 10.0
_POLL: Final = 1.0
_TICK: Final = 0.25


class _Interface(msgspec.Struct):
    name: str = ""
    sandbox: str | None = None


class _Ip(msgspec.Struct):
    address: str = ""
    interface: int | None = None


class _Result(msgspec.Struct):
    interfaces: list[_Interface] | None = None
    ips: list[_Ip] | None = None


class _Cached(msgspec.Struct, rename="camel"):
    kind: str = ""
    if_name: str = ""
    cni_args: list[list[str]] | None = None
    result: _Result | None = None


class Attached(NamedTuple):
    """A pod's network as its plugin made it: ``interfaces`` are those on the node's side, a bridge possibly among them."""

    pod: str
    interfaces: tuple[str, ...]
    addresses: tuple[Cidr, ...]


def read_result(content: bytes) -> Attached | None:
    """Read one file; None if it is about no pod, or not about the network that policies are about.

    :raises msgspec.DecodeError: it is no JSON object of libcni's format, or not yet all of it
    :raises InvalidProgram: an address in it is none
    """
    cached = msgspec.json.decode(content, type=_Cached)
    arguments = {pair[0]: pair[1] for pair in cached.cni_args or () if len(pair) == 2}
    namespace, name = arguments.get("K8S_POD_NAMESPACE"), arguments.get("K8S_POD_NAME")
    if cached.kind != "cniCacheV1" or not namespace or not name or cached.if_name != _POD_INTERFACE or cached.result is None:
        return None
    interfaces = cached.result.interfaces or []
    inside = {index for index, interface in enumerate(interfaces) if interface.sandbox}
    addresses = {
        Cidr.parse(ip.address.partition("/")[0])
        for ip in cached.result.ips or ()
        # Without an index the address is the pod's; with one it may be a bridge's.
        if ip.interface is None or not inside or ip.interface in inside
    }
    outside = tuple(interface.name for interface in interfaces if not interface.sandbox and interface.name)
    return Attached(f"{namespace}/{name}", outside, tuple(sorted(addresses)))


class CniWay(Way):
    """Finds pods by name, with their addresses.

    :param folder: where libcni keeps results; it need not exist yet
    """

    name = "cni"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        #: By file: when it was written and how long it is, and what it says.
        self._files: dict[str, tuple[tuple[int, int], Attached | None]] = {}

    def _follow(self) -> None:
        while not self._stopping.is_set():
            if not self._folder.is_dir():
                self._files.clear()
                self._say(Found())
                self._stopping.wait(_POLL)
                continue
            self._look()
            self._watch()

    def _watch(self) -> None:
        """Look after every change, until the folder is gone."""
        looked = float("-inf")
        for changes in watchfiles.watch(
            self._folder,
            watch_filter=None,
            step=5,
            debounce=20,
            rust_timeout=int(_TICK * 1000),
            yield_on_timeout=True,
            stop_event=self._stopping,
            recursive=False,
            raise_interrupt=False,
        ):
            if not self._folder.is_dir():
                return
            # The first tick looks in any case: the watch begins a little later than the look before it.
            if changes or time.monotonic() - looked >= _LOOK_ANYWAY:
                looked = time.monotonic()
                self._look()

    def _look(self) -> None:
        before, self._files = self._files, {}
        try:
            entries = [entry for entry in os.scandir(self._folder) if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            entries = []
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                state = (status.st_mtime_ns, status.st_size)
                known = before.get(entry.name)
                self._files[entry.name] = known if known is not None and known[0] == state else (state, _read(Path(entry.path)))
            except FileNotFoundError:
                continue  # it went in between
        self._say(_found(self._files.values()))


def _read(path: Path) -> Attached | None:
    with path.open("rb") as file:
        content = file.read(_MAX_SIZE)
    try:
        return read_result(content)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidProgram) as error:
        # Half written, most likely: libcni writes in place. It is read again when the rest has come.
        _log.debug("a plugin's result cannot be read", file=str(path), error=str(error))
        return None


def _found(files: Iterable[tuple[tuple[int, int], Attached | None]]) -> Found:
    """Return what all files say; of a pod that has two, because its sandbox was made anew, the later one counts."""
    pods: dict[str, Place] = {}
    candidates: dict[str, tuple[str, ...]] = {}
    for _, attached in sorted((state, attached) for state, attached in files if attached is not None):
        pods[attached.pod] = Place(None, attached.addresses)
        candidates[attached.pod] = attached.interfaces
    return Found(pods=pods, candidates=candidates)
