"""All I/O: ``iptables-*-restore``, ``iptables-*-save`` and ``ipset``, each as a child process fed through its standard input.

A child begins in the network namespace of the thread that starts it, so another namespace costs a short-lived thread.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from polyplane.backend_kit.messages import shorten
from polyplane.backend_kit.namespaces import in_namespace
from polyplane_iptables.complaints import explained
from polyplane_iptables.connmarks import clear
from polyplane_iptables.options import IptablesOptions, Variant
from polyplane_iptables.plan import Step, destroy_text
from polyplane_iptables.settypes import kernel_has

#: Types of sets that this backend uses.
ADDRESSES, PORTS = SET_TYPES = ("hash:net", "bitmap:port")
#: Tables that iptables has.
TABLES: Final = ("filter", "mangle", "nat", "raw", "security")
_PROGRAM: Final = {4: "iptables", 6: "ip6tables"}
_NAMES: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}
#: Exit status of iptables when somebody else holds the lock or the kernel lacks a resource.
_BUSY: Final = 4
_TRANSIENT: Final = ("xtables lock", "Resource temporarily unavailable", "Device or resource busy", "Cannot allocate memory", "Interrupted")
#: What iptables-nft says of a table with rules that it does not understand.
_UNREADABLE: Final = "is incompatible, use 'nft' tool"
_IN_USE: Final = "in use by a kernel component"
#: iptables-nft commits before the kernel has let go of the sets of the rules it removed.
_RELEASE_SECONDS: Final = 1.0
#: On top of the lock's wait: the largest tables take seconds.
_PATIENCE_SECONDS: Final = 120
_WHERE_TOOLS_ARE: Final = "/usr/sbin:/sbin:/usr/local/sbin"


class ToolError(Exception):
    """A tool refused; the text is its message, shortened. ``transient``: the same command may succeed later."""

    def __init__(self, tool: str, message: str, *, transient: bool = False, in_use: bool = False) -> None:
        self.transient = transient
        self.in_use = in_use
        super().__init__(f"{tool}: {shorten(message, tool)}")


class ToolMissing(Exception):
    """A program is not installed; the text is the remedy."""


class Runner(Protocol):
    """Runs one command; replaced by tests that break off between two commands."""

    def __call__(self, argv: Sequence[str], text: str) -> str:
        """Return what the command prints.

        :raises ToolError: it failed
        """
        ...


class Kernel:
    """iptables and ipset of one network namespace."""

    def __init__(self, options: IptablesOptions, runner: Runner | None = None) -> None:
        self._options: Final = options
        self._run: Final = runner or self.execute

    # --- tables ---

    def save(self, variant: Variant, family: int, *, table: str = "filter", counters: bool = False) -> str:
        """Return what ``iptables-save`` prints about one table; empty where it is not in use.

        To look at a legacy table is to create it, which other programs take for a sign of legacy's use; so one that is not
        there is not looked at.

        :raises ToolError: it cannot be read; other programs may have written into it by nft
        """
        if variant is Variant.LEGACY and table not in self.legacy_tables(family):
            return ""
        argv = [self._tool(variant, family, "save"), *(["-c"] if counters else []), "-t", table]
        text = self._run(argv, "")
        if text.startswith("# Table") and _UNREADABLE in text:
            # iptables-nft 1.8 ends well although it has read nothing.
            raise ToolError(Path(argv[0]).name, explained(text, ""))
        return text

    def restore(self, variant: Variant, family: int, text: str) -> None:
        """Commit one family's changes, all or none.

        :raises ToolError: nothing was changed
        """
        self._run([self._tool(variant, family, "restore"), "--noflush", "-w", str(self._options.lock_wait)], text)

    def legacy_tables(self, family: int) -> frozenset[str]:
        """Names of the tables of iptables-legacy that are in use in the namespace."""

        def read() -> str:
            try:
                return Path("/proc/thread-self/net", _NAMES[family]).read_text(encoding="ascii")
            except FileNotFoundError:
                return ""

        return frozenset(in_namespace(self._options.netns, read).split())

    def nft_tables(self) -> Iterator[tuple[str, str]]:
        """Yield the names of nftables' own tables, with what ``nft`` prints about them; nothing where it is not installed.

        :raises ToolError: nft may not look
        """
        nft = shutil.which("nft", path=_path())
        if nft is None:
            return
        for line in self._run([nft, "list", "tables"], "").splitlines():
            _, family, name = line.split(maxsplit=2)
            if family in ("ip", "ip6") and name in TABLES:
                continue
            try:
                text = self._run([nft, "-t", "list", "table", family, name], "")
            except ToolError as error:
                if "No such file" not in str(error):  # it has gone meanwhile
                    raise
            else:
                yield f"{family} {name}", text

    # --- sets ---

    def save_sets(self) -> str:
        """Return what ``ipset save`` prints."""
        return self._run([_find("ipset", "ipset"), "save"], "")

    def restore_sets(self, text: str) -> None:
        """Carry out ipset's commands one by one.

        :raises ToolError: those before the refused one were carried out
        """
        self._run([_find("ipset", "ipset"), "restore", "-exist"], text)

    def destroy_sets(self, names: Iterable[str]) -> tuple[str, ...]:
        """Destroy sets; return those that rules still ask."""
        left = list(names)
        deadline = time.monotonic() + _RELEASE_SECONDS
        while left:
            try:
                self.restore_sets(destroy_text(left))
            except ToolError as error:
                if not error.in_use:
                    raise
                held = _first_in_use(str(error), left)
                if time.monotonic() > deadline:
                    return self._destroy_one_by_one(left)
                # What came before it is gone; -exist lets the next round pass over that.
                left = left[left.index(held) :] if held else left
                time.sleep(0.02)
            else:
                return ()
        return ()

    def _destroy_one_by_one(self, names: Iterable[str]) -> tuple[str, ...]:
        kept = []
        for name in names:
            try:
                self.restore_sets(destroy_text([name]))
            except ToolError:
                kept.append(name)
        return tuple(kept)

    def set_types(self) -> frozenset[str]:
        """Return which of `SET_TYPES` the kernel knows.

        :raises OSError: it does not say
        """
        return in_namespace(self._options.netns, lambda: frozenset(filter(kernel_has, SET_TYPES)))

    # --- connections ---

    def clear_marks(self, family: int, mask: int) -> int:
        """Clear bits of the marks of a family's connections; return how many had any of them.

        :raises MarksStuck: that cannot be done here
        """
        return in_namespace(self._options.netns, lambda: clear(family, mask))

    # --- steps and facts ---

    def take(self, variant: Variant, step: Step) -> None:
        """Carry out one step of a plan.

        :raises ToolError: see `restore` and `restore_sets`
        :raises MarksStuck: see `clear_marks`
        """
        if step.clears:
            self.clear_marks(step.tool, step.clears)
        elif step.tool:
            self.restore(variant, step.tool, step.text)
        else:
            self.restore_sets(step.text)

    def has(self, variant: Variant) -> bool:
        """Whether the programs of a variant are installed, for both families."""
        try:
            for family in _PROGRAM:
                for verb in ("save", "restore"):
                    self._tool(variant, family, verb)
        except ToolMissing:
            return False
        return True

    def details(self) -> tuple[tuple[str, str], ...]:
        """Facts for people."""
        versions = [("kernel", platform.release())]
        for name, argv in (("iptables", ["iptables", "--version"]), ("ipset", ["ipset", "--version"])):
            path = shutil.which(argv[0], path=_path())
            if path is not None:
                done = subprocess.run([path, *argv[1:]], capture_output=True, text=True, check=False)
                versions.append((name, (done.stdout.splitlines() or ["?"])[0].strip()))
        return tuple(versions)

    def _tool(self, variant: Variant, family: int, verb: str) -> str:
        name = f"{_PROGRAM[family]}-{variant}-{verb}"
        return _find(name, "iptables")

    def execute(self, argv: Sequence[str], text: str) -> str:
        """Run a command in the namespace; see `Runner`."""
        tool = Path(argv[0]).name
        env = {**os.environ, "LC_ALL": "C", "PATH": _path()}
        if self._options.lock_file is not None:
            env["XTABLES_LOCKFILE"] = self._options.lock_file

        def call() -> subprocess.CompletedProcess[str]:
            patience = self._options.lock_wait + _PATIENCE_SECONDS
            return subprocess.run(list(argv), input=text, capture_output=True, text=True, check=False, env=env, timeout=patience)

        try:
            done = in_namespace(self._options.netns, call)
        except subprocess.TimeoutExpired as error:
            raise ToolError(tool, f"no end after {error.timeout:.0f} s", transient=True) from error
        if done.returncode:
            transient = done.returncode == _BUSY or any(reason in done.stderr for reason in _TRANSIENT)
            raise ToolError(tool, explained(done.stderr, text), transient=transient, in_use=_IN_USE in done.stderr)
        return done.stdout


def _first_in_use(message: str, names: list[str]) -> str | None:
    """Return the set that an error of ``ipset restore`` is about: it quotes the line."""
    return next((word for word in re.findall(r"destroy ([^\s)]+)", message) if word in names), None)


def _path() -> str:
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_WHERE_TOOLS_ARE}"


def _find(name: str, package: str) -> str:
    path = shutil.which(name, path=_path())
    if path is None:
        raise ToolMissing(f"{name} is not here: apt install {package}")
    return path
