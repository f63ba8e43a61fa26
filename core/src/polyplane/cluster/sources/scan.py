"""Looking at a directory: which files are manifests, which have changed, and what is in them. All the I/O of the manifest source but watching."""

from __future__ import annotations

import os
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


class Scanner:
    """Brings an inventory up to date with a directory; reads only files that have changed since it last looked."""

    def __init__(self, directory: Path, inventory: Inventory) -> None:
        self._directory = directory
        self._inventory = inventory
        self._signatures: dict[str, _Signature] = {}
        self._doubtful: dict[str, float] = {}

    def scan(self, now: float | None) -> bool:
        """Look at the whole directory once; whether everything that was seen has been believed.

        Somebody who rewrites a file in place empties it first, and somebody who replaces one may remove it first. So an empty or
        missing file keeps what it gave until it has been so for `SETTLE_SECONDS` of ``now``, any clock that only goes forward;
        until then the answer is False: look again a moment later. With None, everything is believed at once.
        """
        if not self._directory.is_dir():
            self._inventory.directory_troubles(
                {str(self._directory): "the directory is gone, what it gave stays in force; create it again"}
            )
            return True
        listing = _Listing(self._directory)
        doubtful = {path for path in set(self._inventory.paths) - listing.files.keys() if not listing.hides(path)}
        for path, status in listing.files.items():
            if status.st_size == 0:
                doubtful.add(path)
            else:
                self._read(path, status)
        self._doubtful = {
            path: self._doubtful.get(path, now)
            for path in doubtful
            if now is not None and self._inventory.gives_objects(path) and now - self._doubtful.get(path, now) < SETTLE_SECONDS
        }
        for path in doubtful - self._doubtful.keys():
            if path in listing.files:
                self._read(path, listing.files[path])
            else:
                self._inventory.remove(path)
                self._signatures.pop(path, None)
        self._inventory.directory_troubles({str(self._directory / path): reason for path, reason in listing.troubles.items()})
        return not self._doubtful

    def _read(self, path: str, status: os.stat_result) -> None:
        signature = _Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._signatures.get(path) == signature:
            return
        self._signatures.pop(path, None)
        now = time.time_ns()
        try:
            with (self._directory / path).open("rb") as file:
                # One byte more than allowed tells too large from just large enough, also when the file grows meanwhile.
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            self._inventory.unreadable(path, f"cannot be read: {error.strerror or error}; check its permissions")
            return
        if len(content) > MAX_BYTES:
            self._inventory.unreadable(path, too_large(max(status.st_size, len(content))))
        else:
            self._inventory.put(path, content)
        if abs(now - max(status.st_mtime_ns, status.st_ctime_ns)) > _TRUST_AFTER_NS:
            self._signatures[path] = signature


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
