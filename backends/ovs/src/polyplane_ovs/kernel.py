"""`Switch`: the bridge's flows, read and written with ``ovs-ofctl`` over its management socket."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from polyplane.backend_kit.messages import shorten
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import OURS

_PROGRAM: Final = "ovs-ofctl"
#: Of all versions that Open vSwitch speaks by default the one whose listings write registers as we do.
_PROTOCOL: Final = "OpenFlow15"
#: Seconds after which ovs-ofctl gives up: it waits for ever for a switch whose ovsdb-server has died.
_TIMEOUT: Final = 60
_UNREACHABLE: Final = re.compile(
    r"connecting to|Connection (refused|reset)|No such file|connection (dropped|closed)|Broken pipe|timed? ?out", re.IGNORECASE
)
#: Packets a second that the switch tells us of: as many ICMP errors as the Linux kernel sends by default.
_RATE: Final = 1000
_BAND: Final = f"type=drop rate={_RATE} burst_size={_RATE}"
_METER: Final = f"pktps,burst,bands={_BAND.replace(' ', ',')}"
_NO_VERSION: Final = re.compile(r"version negotiation failed")


class SwitchError(Exception):
    """ovs-ofctl failed, nothing was changed. ``transient``: the switch cannot be reached, which may pass."""

    def __init__(self, message: str, *, transient: bool) -> None:
        self.transient = transient
        super().__init__(message)


class Switch:
    """The flows of one bridge."""

    def __init__(self, options: OvsOptions) -> None:
        self._options: Final = options
        self._target: Final = f"unix:{options.management}"

    def run(self, bundle: str) -> None:
        """Bring a bundle into the switch, all of it or nothing.

        :raises SwitchError: nothing was changed
        """
        self._call("--bundle", "add-flows", self._target, "-", text=bundle)

    def flows(self, *, only_ours: bool = False, counters: bool = False) -> str:
        """Return the listing of the flows.

        :raises SwitchError: it cannot be read
        """
        match = [OURS] if only_ours else []
        return self._call("--no-names", "--stats" if counters else "--no-stats", "dump-flows", self._target, *match)

    def count(self, table: int | None = None) -> int:
        """Return how many flows are ours, in a table or in all.

        :raises SwitchError: it cannot be read
        """
        where = [] if table is None else [f"table={table}"]
        said = self._call("dump-aggregate", self._target, ",".join((OURS, *where)))
        match = re.search(r"flow_count=(\d+)", said)
        if match is None:
            raise SwitchError(f"cannot read the number of flows in {shorten(said, _PROGRAM)!r}", transient=False)
        return int(match[1])

    def remove_ours(self) -> None:
        """Remove all flows that carry our mark.

        :raises SwitchError: nothing was changed
        """
        self._call("del-flows", self._target, OURS)

    def forget_connections(self) -> None:
        """Empty our conntrack zone, where this ovs-ofctl can (from 3.1 on)."""
        self._try("ct-flush", self._target, f"zone={self._options.zone}")

    def ensure_meter(self) -> None:
        """Make our meter, if nobody has; where the datapath has none, what we are told of is bounded by the switch's own queue alone.

        :raises SwitchError: the switch cannot be reached
        """
        self._try("add-meter", self._target, f"meter={self._options.meter},{_METER}")

    def remove_meter(self) -> None:
        """Remove our meter, if it is as we make it.

        :raises SwitchError: the switch cannot be reached
        """
        number = f"meter={self._options.meter}"
        if " ".join(_METER.split(",")[:2]) in (said := self._try("dump-meter", self._target, number)) and _BAND in said:
            self._try("del-meter", self._target, number)

    def _try(self, *arguments: str) -> str:
        """Return what a command says, nothing if the switch refuses it."""
        try:
            return self._call(*arguments)
        except SwitchError as error:
            if error.transient:
                raise
            return ""

    def missing(self) -> tuple[str, ...]:
        """Say what keeps us from working here, each with the remedy."""
        found = []
        if shutil.which(_PROGRAM) is None:
            found.append(
                f"{_PROGRAM} is not here: apt install openvswitch-common (and openvswitch-switch, if it is to run on this machine)"
            )
        if not Path(self._options.run_dir).is_dir():
            found.append(
                f"{self._options.run_dir} does not exist: start Open vSwitch (apt install openvswitch-switch), or correct the option run_dir"
            )
        return tuple(found)

    def version(self) -> str:
        """Return the version of ovs-ofctl, empty if there is none."""
        try:
            said = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            return ""
        match = re.search(r"\d+\.\d+\S*", said)
        return match[0] if match else ""

    def _call(self, *arguments: str, text: str | None = None) -> str:
        command = [_PROGRAM, f"--timeout={_TIMEOUT}", "-O", _PROTOCOL, *arguments]
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise SwitchError(f"{_PROGRAM} is not here: apt install openvswitch-common", transient=False) from error
        if done.returncode == 0:
            return done.stdout
        said = shorten(done.stderr, _PROGRAM)
        if _NO_VERSION.search(said):
            raise SwitchError(
                f"bridge {self._options.bridge} does not speak {_PROTOCOL}; "
                f"allow it: ovs-vsctl add bridge {self._options.bridge} protocols {_PROTOCOL} ({said})",
                transient=False,
            )
        raise SwitchError(said, transient=done.returncode < 0 or _UNREACHABLE.search(said) is not None)
