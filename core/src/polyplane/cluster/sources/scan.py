"""Looking at a directory: which files are manifests, which have changed, and what is in them. All the I/O of the manifest source but watching."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from polyplane.cluster.sources.documents import MAX_BYTES, too_large
from polyplane.cluster.sources.inventory import Inventory

_ENDINGS: Final = (".yaml", ".yml", ".json")
#: A file changed this recently may change again without a visible difference in its times (the kernel's clock ticks every 1 to
#: 10 ms), so its times are not trusted and it is read again at the next look.
_TRUST_AFTER_NS: Final = 50_000_000
#: Seconds for which a file that is empty or gone may be in the middle of being replaced.
SETTLE_SECONDS: Final = 0.3
#: Seconds for which a file that somebody has open for writing counts as unfinished.
WRITER_SECONDS: Final = 5.0


def is_manifest(name: str) -> bool:
    """Whether a file's name is that of a manifest.

    Everything hidden is not: that covers the swap files of vi and the lock files of Emacs, and the ``..data`` directories that
    stand behind the files of a mounted ConfigMap, which are reached by their visible names. Backups and temporary files
    (``web.yaml~``, ``#web.yaml#``, ``4913``, ``sedX7aB2c``) do not end like a manifest.
    """
    return name.lower().endswith(_ENDINGS) and not name.startswith((".", "#", "~"))


class _Signature(NamedTuple):
    """What changes when a file's content does."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Signature:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class _Reading(NamedTuple):
    """What reading a file gave: its content, or why there is none."""

    content: bytes = b""
    problem: str | None = None
    #: Somebody was writing it.
    unfinished: bool = False
    #: What it has as long as the content is this; None where that cannot be told yet.
    signature: _Signature | None = None

    @classmethod
    def of(cls, path: Path) -> _Reading | None:
        """Read a file; None if it is gone."""
        now = time.time_ns()
        try:
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                # One byte more than allowed tells too large from just large enough, also when the file grows meanwhile.
                content = file.read(MAX_BYTES + 1)
                written = _is_being_written(file.fileno())
                status = os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            return cls(problem=f"cannot be read: {error.strerror or error}; check its permissions")
        signature = _Signature.of(status)
        settled = abs(now - max(status.st_mtime_ns, status.st_ctime_ns)) > _TRUST_AFTER_NS
        return cls(
            content=content,
            problem=too_large(max(status.st_size, len(content))) if len(content) > MAX_BYTES else None,
            unfinished=written or signature != _Signature.of(before),
            signature=signature if settled else None,
        )

    @property
    def patience(self) -> float:
        """Seconds for which this may be the middle of a change."""
        if self.unfinished:
            return WRITER_SECONDS
        return 0.0 if self.content or self.problem else SETTLE_SECONDS


def _is_being_written(descriptor: int) -> bool:
    """Whether a process has the file open for writing, for then the kernel refuses a read lease with EAGAIN (fcntl(2), F_SETLEASE).

    Where that cannot be asked it is taken not to be: the file is somebody else's and we lack CAP_LEASE, or its filesystem has no
    leases. NFS and SMB refuse leases on files that are not delegated to this machine, which reads as a writer.
    """
    try:
        # A writer that comes while we hold the lease is announced by SIGIO, which would end the process; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


class _Doubt(NamedTuple):
    """Since when a file has not been believed, and what it looked like then."""

    since: float
    signature: _Signature | None


class Scanner:
    """Brings an inventory up to date with a directory; reads only files that have changed since it last looked."""

    def __init__(self, directory: Path, inventory: Inventory) -> None:
        self._directory = directory
        self._inventory = inventory
        self._signatures: dict[str, _Signature] = {}
        self._doubts: dict[str, _Doubt] = {}

    def scan(self, now: float | None) -> bool:
        """Look at the whole directory once; whether everything that was seen has been believed.

        Somebody who rewrites a file in place empties it first, and somebody who replaces one may remove it first. So an empty or
        missing file keeps what it gave until it has been so for `SETTLE_SECONDS` of ``now``, any clock that only goes forward,
        and one that a process has open for writing keeps it for `WRITER_SECONDS`; until then the answer is False: look again a
        moment later. A file that was emptied or removed once more is waited for anew. With None, everything is believed at once.
        """
        if not self._directory.is_dir():
            self._inventory.directory_troubles(
                {str(self._directory): "the directory is gone, what it gave stays in force; create it again"}
            )
            return True
        listing = _Listing(self._directory)
        doubts: dict[str, _Doubt] = {}
        for path in sorted(listing.files.keys() | {path for path in self._inventory.paths if not listing.hides(path)}):
            status = listing.files.get(path)
            signature = None if status is None else _Signature.of(status)
            if signature is not None and self._signatures.get(path) == signature:
                continue
            reading = None if signature is None else _Reading.of(self._directory / path)
            if now is not None and self._inventory.gives_objects(path):
                doubt = self._doubts.get(path)
                if doubt is None or (doubt.signature != signature and (reading is None or not reading.content)):
                    doubt = _Doubt(now, signature)
                if now - doubt.since < (SETTLE_SECONDS if reading is None else reading.patience):
                    doubts[path] = doubt
                    continue
            self._believe(path, reading)
        self._doubts = doubts
        self._inventory.directory_troubles({str(self._directory / path): reason for path, reason in listing.troubles.items()})
        return not doubts

    def _believe(self, path: str, reading: _Reading | None) -> None:
        self._signatures.pop(path, None)
        if reading is None:
            self._inventory.remove(path)
            return
        if reading.problem is not None:
            self._inventory.unreadable(path, reading.problem)
        else:
            self._inventory.put(path, reading.content)
        if reading.signature is not None:
            self._signatures[path] = reading.signature


class _Listing:
    """The manifests below a directory by relative path, and the directories that could not be listed, with the reason."""

    def __init__(self, root: Path) -> None:
        self.files: dict[str, os.stat_result] = {}
        self.troubles: dict[str, str] = {}
        for path, status in self._walk(root, "", frozenset()):
            self.files[path] = status

    def hides(self, path: str) -> bool:
        """Whether a file that is not in the listing may be there all the same."""
        return any(where == "." or path.startswith(f"{where}/") for where in self.troubles)

    def _walk(self, directory: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
        try:
            own = directory.stat()
            names = sorted(entry.name for entry in directory.iterdir())
        except OSError as error:
            reason = f"cannot be listed: {error.strerror or error}; check its permissions"
            self.troubles[prefix.rstrip("/") or "."] = reason
            return
        identity = (own.st_dev, own.st_ino)
        if identity in above:
            # A symbolic link back to where we came from.
            return
        for name in names:
            if name.startswith("."):
                continue
            entry = directory / name
            try:
                status = entry.stat()
            except OSError:
                # Removed since it was listed, or a link to nothing: not there.
                continue
            if stat.S_ISDIR(status.st_mode):
                yield from self._walk(entry, f"{prefix}{name}/", above | {identity})
            elif stat.S_ISREG(status.st_mode) and is_manifest(name):
                yield f"{prefix}{name}", status
