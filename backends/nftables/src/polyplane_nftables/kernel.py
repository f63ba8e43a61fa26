"""All I/O: nft's text language through libnftables in this process, or through the ``nft`` program where there is no library.

A context of libnftables belongs to the network namespace of the thread that makes it. For a namespace other than our own
each call runs in a thread of its own that enters it first: libnftables opens its socket anew when the ruleset changes under
it, and must then still be in the right place. Such a thread costs some 50 µs and never moves the rest of the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from enum import IntFlag
from typing import Final, Protocol

from polyplane.backend_kit.messages import shorten
from polyplane.backend_kit.namespaces import in_namespace
from polyplane_nftables import elements

LIBRARY: Final = "libnftables.so.1"
#: What may pass by itself: another writer, a full socket buffer, memory.
_TRANSIENT: Final = (
    "Device or resource busy",
    "No buffer space available",
    "Resource temporarily unavailable",
    "Interrupted system call",
    "Cannot allocate memory",
    "Message too long",
)
_MISSING: Final = "No such file or directory"
#: libnftables 1.0.6 waits for its socket with select(2), which ends the process (SIGABRT) at descriptor 1024 and above.
#: Some room, because others may open descriptors between our look and its socket.
_SELECTABLE: Final = 1024 - 64


class Output(IntFlag):
    """How nft lists (``NFT_CTX_OUTPUT_…`` of libnftables)."""

    STATELESS = 1 << 2
    NUMERIC = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10
    TERSE = 1 << 11


class NftError(Exception):
    """nft refused; the text is its message, shortened. ``transient``: the same command may succeed later."""

    def __init__(self, message: str) -> None:
        self.transient = any(reason in message for reason in _TRANSIENT)
        self.missing = _MISSING in message
        super().__init__(shorten(message, "nft"))


class Driver(Protocol):
    """One way to run nft commands; called in the right namespace."""

    def execute(self, text: str, output: Output) -> str:
        """Run commands as one batch and return what they print.

        :raises NftError: nothing was changed
        """
        ...


class Library:
    """libnftables through ctypes. The context is kept: it costs more to make than an element costs to add."""

    def __init__(self) -> None:
        library = ctypes.CDLL(LIBRARY)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        self._library: Final = library
        self._context: int | None = None

    def execute(self, text: str, output: Output) -> str:
        """See `Driver`."""
        library = self._library
        if self._context is None:
            self._context = library.nft_ctx_new(0)
            if not self._context:
                raise NftError("libnftables gives no context: Cannot allocate memory")
            library.nft_ctx_buffer_output(self._context)
            library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_output_set_flags(self._context, int(output))
        failed = library.nft_run_cmd_from_buffer(self._context, text.encode())
        printed: bytes = library.nft_ctx_get_output_buffer(self._context)
        complaint: bytes = library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(complaint.decode(errors="replace"))
        return printed.decode(errors="replace")

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.nft_ctx_free(self._context)


class Program:
    """The ``nft`` program, fed through its standard input."""

    def __init__(self, path: str) -> None:
        self._path: Final = path

    def execute(self, text: str, output: Output) -> str:
        """See `Driver`."""
        flags = [
            flag
            for wanted, flag in (
                (Output.STATELESS, "--stateless"),
                (Output.NUMERIC, "--numeric"),
                (Output.TERSE, "--terse"),
            )
            if output & wanted
        ]
        done = subprocess.run([self._path, *flags, "-f", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NftError(done.stderr)
        return done.stdout


class Kernel:
    """nf_tables of one network namespace."""

    def __init__(self, netns: str | None = None, driver: Driver | None = None) -> None:
        self._netns: Final = netns
        self._driver: Driver | None = driver

    def run(self, text: str) -> None:
        """Run commands as one atomic batch.

        :raises NftError: nothing was changed
        """
        self._execute(text, Output(0))

    def run_elements(self, messages: Sequence[tuple[int, int, bytes]]) -> None:
        """Change elements as `polyplane_nftables.elements` encodes them, all or none.

        :raises NftError: nothing was changed
        """
        try:
            in_namespace(self._netns, lambda: elements.send(messages))
        except OSError as error:
            raise NftError(f"elements: {error.strerror or error}") from error

    def list_table(self, table: str, output: Output) -> str | None:
        """Return the listing of ``inet <table>``, None if there is none.

        :raises NftError: it cannot be read
        """
        try:
            return self._execute(f"list table inet {table}\n", output)
        except NftError as error:
            if error.missing:
                return None
            raise

    def list_without_elements(self, table: str, output: Output) -> str | None:
        """Return the listing of ``inet <table>`` without the elements of its sets, None if there is none.

        ``nft --terse list table`` of 1.0.6 reads all elements and then does not print them (1.5 s at 100,000); a terse
        listing of the family's whole ruleset does not read them (10 ms), so the table is cut out of that.

        :raises NftError: it cannot be read
        """
        lines: list[str] = []
        for line in self._execute("list ruleset inet\n", output | Output.TERSE).splitlines():
            if lines or re.fullmatch(rf"table inet {re.escape(table)} \{{( # .*)?", line):
                lines.append(line)
                if line == "}":
                    return "\n".join(lines)
        return None

    def missing(self) -> tuple[str, ...]:
        """Say what keeps us from working here, each with the remedy; changes nothing."""
        try:
            # Not "list tables": nft 1.0.6 reads everything there is before it answers that.
            self._execute("list chains inet\n", Output(0))
        except FileNotFoundError as error:
            return (f"{error.filename} does not exist: create the network namespace or correct the option netns",)
        except DriverMissing as error:
            return (str(error),)
        except PermissionError:
            return ("entering the network namespace takes CAP_SYS_ADMIN: run as root or leave out the option netns",)
        except NftError as error:
            if "Operation not permitted" in str(error):
                return ("reading and writing nftables takes CAP_NET_ADMIN: grant it, or run as root",)
            return (f"this kernel does not do nftables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET; modprobe nf_tables): {error}",)
        return ()

    def details(self) -> tuple[tuple[str, str], ...]:
        """Facts for people: how nft is reached, and the kernel's version."""
        try:
            way = "libnftables" if isinstance(self._open(), Library) else "nft program"
        except DriverMissing:
            way = "none"
        return (("nft", way), ("kernel", platform.release()))

    def _open(self) -> Driver:
        # the library opens its socket anew now and then, long after the first time
        if self._driver is None or (isinstance(self._driver, Library) and not _can_select()):
            self._driver = open_driver()
        return self._driver

    def _execute(self, text: str, output: Output) -> str:
        driver = self._open()
        return in_namespace(self._netns, lambda: driver.execute(text, output))


class DriverMissing(Exception):
    """There is neither libnftables nor nft; the text is the remedy."""


def open_driver() -> Driver:
    """Return the best way to nft on this machine.

    :raises DriverMissing: there is none
    """
    path = shutil.which("nft")
    if path is None or _can_select():
        try:
            return Library()
        except OSError:
            if path is None:
                raise DriverMissing(f"neither {LIBRARY} nor nft is here: apt install libnftables1, or apt install nftables") from None
    return Program(path)


def _can_select() -> bool:
    """Whether the next socket of this process will have a number that libnftables can wait for."""
    descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(descriptor)
    return descriptor < _SELECTABLE
