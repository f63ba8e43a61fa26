"""`NftablesOptions`: what can be set under ``[backend.nftables]``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, TypeGuard

from polyplane.errors import ConfigError
from polyplane_nftables.owned import TABLE_NAME

_DEFAULT_TABLE: Final = "polyplane"
_WHERE: Final = "[backend.nftables]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NftablesOptions:
    """Options of the nftables backend.

    ``table``: name of our table. ``netns``: path of the network namespace to work in, default the process's own.
    ``log_group``: nflog group for rules that log, default the kernel log. ``priority``: of our two base chains; a denial
    counts wherever it comes, so this only matters to those who look at packets between two programs' chains.
    """

    table: str = _DEFAULT_TABLE
    netns: str | None = None
    log_group: int | None = None
    priority: int = 0

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> NftablesOptions:
        """Check names, types and values.

        :raises ConfigError: naming the key and what it may be
        """
        known = [option.name for option in fields(cls)]
        for key in options:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise ConfigError(f"{_WHERE} {key}: there is no such option; {remedy}")
        table = options.get("table", _DEFAULT_TABLE)
        if not isinstance(table, str) or not TABLE_NAME.fullmatch(table):
            raise ConfigError(f"{_WHERE} table: {table!r} is no usable name; take up to 32 letters, digits and _, a letter first")
        netns = options.get("netns")
        if netns is not None and not (isinstance(netns, str) and netns.startswith("/")):
            raise ConfigError(f"{_WHERE} netns: {netns!r} is no absolute path; give one such as /run/netns/NAME")
        log_group = options.get("log_group")
        if log_group is not None and not (_is_int(log_group) and 0 <= log_group <= 65535):
            raise ConfigError(f"{_WHERE} log_group: {log_group!r} is not a number from 0 to 65535")
        priority = options.get("priority", 0)
        if not (_is_int(priority) and -300 < priority <= 300):
            raise ConfigError(f"{_WHERE} priority: {priority!r} is not a number from -299 to 300 (0 is where filters sit)")
        return cls(table=table, netns=netns, log_group=log_group, priority=priority)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
