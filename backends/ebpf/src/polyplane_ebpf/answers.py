"""`Answers`: the programs that answer refused packets, on every Ethernet device of the node while denials are to be noticed.

By TCX links (Linux 6.6) or filters under clsact. Other programs of the hooks stay and are asked, too; ours come first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from polyplane.backend_kit.namespaces import in_namespace
from polyplane_ebpf import detect, owned, syscall
from polyplane_ebpf.kernel import ANSWER, REFUSE, Kernel
from polyplane_ebpf.namespace import interfaces
from polyplane_ebpf.syscall import AttachType

#: Of our filters under clsact. The preference is a small one that hardly anybody takes by chance: ours is asked before others.
PREFERENCE: Final = 7
_HANDLE: Final = 1
_ETHERNET: Final = 1
_LOOPBACK: Final = 0x8
_PIN: Final = re.compile(r"(tcx|clsact)_(\d+)(?:_(in|out)_([0-9a-f]+))?")
#: Nanoseconds after which a note is nobody's: its packet was lost between two hooks.
_STALE: Final = 5_000_000_000


class _Side(NamedTuple):
    """One way through a device, and what sits there; ``parent`` is its name for clsact."""

    function: str
    attach: AttachType
    parent: int


_SIDES: Final = {
    "in": _Side(REFUSE, AttachType.TCX_INGRESS, 0xFFFFFFF2),
    "out": _Side(ANSWER, AttachType.TCX_EGRESS, 0xFFFFFFF3),
}


class _Pin(NamedTuple):
    """A pin of ours about a device. ``side`` and ``tag`` are empty for clsact, which has one for both sides and all programs."""

    path: Path
    way: str
    side: str
    tag: str


class Answers:
    """Where the programs that answer are attached, and where they should be."""

    def __init__(self, kernel: Kernel, attach: str) -> None:
        self._kernel: Final = kernel
        self._way: Final = attach
        #: The interfaces there were, and those of them that are devices we attach to.
        self._seen: tuple[dict[str, int], dict[int, str]] = ({}, {})
        #: Where we have attached to; None when we do not know.
        self._held: set[int] | None = None

    @cached_property
    def _by_link(self) -> bool:
        """Whether they are attached by TCX links: if the kernel has them, unless clsact is asked for."""
        return self._way == "tcx" or (self._way == "auto" and detect.has_tcx())

    def ensure(self, *, wanted: bool, probe: bool = False) -> int:
        """Attach to all devices, or to none; return the number of operations. Devices that come later are found next time.

        ``probe``: look what is attached, also where we have attached before.
        """
        devices = set(self.devices()) if wanted else set()
        held, self._held = self._held, None
        pins = self._pins() if probe or devices != held else {}
        there = self._attached(pins) if probe or held is None else held
        operations = 0
        for ifindex in sorted(there - devices):
            self._kernel.set_answering(ifindex, on=False)
            operations += self._detach(ifindex, pins.get(ifindex, ()))
        if new := sorted(devices - there):
            programs = {side: self._program(place.function) for side, place in _SIDES.items()}
            attach = self._link if self._by_link else self._filter
            try:
                in_namespace(self._kernel.options.netns, lambda: attach(programs, {ifindex: pins.get(ifindex, ()) for ifindex in new}))
            finally:
                for program in programs.values():
                    os.close(program)
            operations += len(new)
        answering = self._kernel.answering()
        for ifindex in devices ^ answering:
            self._kernel.set_answering(ifindex, on=ifindex in devices)
        if wanted:
            self._kernel.forget_notes(time.monotonic_ns() - _STALE)
        self._held = devices
        return operations

    def missing(self, *, wanted: bool) -> list[str]:
        """Return the names of devices where the program should be and is not."""
        if not wanted:
            return []
        there = self._attached(self._pins())
        return [name for number, name in sorted(self.devices().items()) if number not in there]

    def devices(self) -> dict[int, str]:
        """Return the Ethernet devices of the node, by number."""
        there = interfaces(self._kernel.options.netns)
        if there != self._seen[0]:  # to ask what each of them is takes a hundred times as long
            self._seen = (there, in_namespace(self._kernel.options.netns, _devices))
        return self._seen[1]

    def remove(self) -> int:
        """Detach everywhere."""
        self._held = None
        return sum(self._detach(ifindex, pins) for ifindex, pins in sorted(self._pins().items()))

    # --- what is there ---------------------------------------------------------------------------------------------------

    def _pins(self) -> dict[int, list[_Pin]]:
        """Return our pins about devices, by device."""
        directory = self._kernel.place.directory
        found: dict[int, list[_Pin]] = {}
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            if match := _PIN.fullmatch(path.name):
                found.setdefault(int(match[2]), []).append(_Pin(path, match[1], match[3] or "", match[4] or ""))
        return found

    def _attached(self, pins: Mapping[int, Sequence[_Pin]]) -> set[int]:
        """Return the devices where the present programs are attached on both sides, in the way that is chosen."""
        if self._by_link:
            return {ifindex for ifindex, own in pins.items() if sum(map(self._is_sound, own)) == len(_SIDES)}
        marked = [ifindex for ifindex, own in pins.items() if any(pin.way == "clsact" for pin in own)]
        wanted = [(place.parent, self._filter_name(place.function)) for place in _SIDES.values()]
        return in_namespace(self._kernel.options.netns, partial(_with_filters, marked, wanted)) if marked else set()

    def _is_sound(self, pin: _Pin) -> bool:
        return pin.way == "tcx" and pin.tag == self._kernel.tag() and _is_alive(pin.path)

    def _filter_name(self, function: str) -> str:
        """Return the name of our filters, which tells the program's version, too: pyroute2 does not decode the program's number."""
        return f"{function}_{self._kernel.tag()}"

    def _program(self, function: str) -> int:
        return syscall.open_pinned(str(self._kernel.place.directory / owned.program_pin(function, self._kernel.tag())))

    # --- to and from devices ---------------------------------------------------------------------------------------------

    def _link(self, programs: Mapping[str, int], devices: Mapping[int, Sequence[_Pin]]) -> None:
        """Attach by TCX links; called inside the node's namespace, with the pins that each device has."""
        directory = self._kernel.place.directory
        for ifindex, pins in devices.items():
            sound = set()
            for pin in pins:
                # The kernel lets a link go some time after its pin: till then the same program cannot be attached anew.
                if self._is_sound(pin):
                    sound.add(pin.side)
                elif pin.way == "tcx":
                    pin.path.unlink()
            for side in sorted(_SIDES.keys() - sound):
                link = syscall.link_tcx(programs[side], ifindex, _SIDES[side].attach, first=True)
                try:
                    syscall.pin(link, str(directory / f"tcx_{ifindex}_{side}_{self._kernel.tag()}"))
                finally:
                    os.close(link)

    def _filter(self, programs: Mapping[str, int], devices: Iterable[int]) -> None:
        """Attach by filters under clsact; called inside the node's namespace."""
        directory = self._kernel.place.directory
        with IPRoute() as route:
            for ifindex in devices:
                try:
                    route.tc("add", "clsact", ifindex)
                except NetlinkError as error:
                    if error.code != errno.EEXIST:
                        raise
                    made = "no"
                else:
                    made = "yes"
                marker = directory / f"clsact_{ifindex}"
                if not marker.is_symlink():
                    marker.symlink_to(made)
                for side, place in _SIDES.items():
                    route.tc(
                        "replace-filter",
                        "bpf",
                        ifindex,
                        fd=programs[side],
                        name=self._filter_name(place.function),
                        parent=place.parent,
                        classid=1,
                        direct_action=True,
                        prio=PREFERENCE,
                        handle=_HANDLE,
                    )

    def _detach(self, ifindex: int, pins: Iterable[_Pin]) -> int:
        """Detach from a device, in whatever way; counts as one operation."""
        gone = 0
        for pin in pins:
            if pin.way == "clsact":
                made = pin.path.readlink().name == "yes"
                with contextlib.suppress(FileNotFoundError):  # the namespace may be gone, and its devices with it
                    in_namespace(self._kernel.options.netns, partial(_remove_filters, ifindex, with_parent=made))
            pin.path.unlink()
            gone = 1
        return gone


def _is_alive(pin: Path) -> bool:
    """Whether the link is still attached: it stays when its device goes, but with nothing at its end."""
    link = syscall.open_pinned(str(pin))
    try:
        return syscall.link_info(link).detail[0] != 0
    finally:
        os.close(link)


def _devices() -> dict[int, str]:
    with IPRoute() as route:
        return {
            link["index"]: link.get_attr("IFLA_IFNAME")
            for link in route.get_links()
            if link["ifi_type"] == _ETHERNET and not link["flags"] & _LOOPBACK
        }


def _with_filters(devices: Iterable[int], wanted: Collection[tuple[int, str]]) -> set[int]:
    """Return which devices have all these filters, given by side and name."""
    with IPRoute() as route:
        return {ifindex for ifindex in devices if all(name in filters(route, ifindex, parent).values() for parent, name in wanted)}


def filters(route: IPRoute, ifindex: int, parent: int) -> dict[tuple[int, int], str]:
    """Return the names of BPF filters on one side of a device, by preference and handle."""
    try:
        found: list[Any] = list(route.get_filters(index=ifindex, parent=parent))
    except NetlinkError:
        return {}
    named = {(one["info"] >> 16, one["handle"]): one.get_nested("TCA_OPTIONS", "TCA_BPF_NAME") for one in found}
    return {place: str(name) for place, name in named.items() if name is not None}


def _remove_filters(ifindex: int, *, with_parent: bool) -> None:
    with IPRoute() as route:
        for place in _SIDES.values():
            with contextlib.suppress(NetlinkError):  # the device is gone, or somebody was faster
                route.tc("del-filter", "bpf", ifindex, parent=place.parent, prio=PREFERENCE, handle=_HANDLE)
        if not with_parent:
            return
        with contextlib.suppress(NetlinkError):
            others = [one for place in _SIDES.values() for one in route.get_filters(index=ifindex, parent=place.parent)]
            if not others:
                route.tc("del", "clsact", ifindex)
