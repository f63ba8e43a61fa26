"""`NftablesOptions`: what can be set under ``[backend.nftables]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from polyplane.backend_kit.options import is_int, log_group_option, netns_option, refuse_unknown
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
        refuse_unknown(_WHERE, options, [option.name for option in fields(cls)])
        table = options.get("table", _DEFAULT_TABLE)
        if not isinstance(table, str) or not TABLE_NAME.fullmatch(table):
            raise ConfigError(f"{_WHERE} table: {table!r} is no usable name; take up to 32 letters, digits and _, a letter first")
        priority = options.get("priority", 0)
        if not (is_int(priority) and -300 < priority <= 300):
            raise ConfigError(f"{_WHERE} priority: {priority!r} is not a number from -299 to 300 (0 is where filters sit)")
        return cls(
            table=table,
            netns=netns_option(_WHERE, options.get("netns")),
            log_group=log_group_option(_WHERE, options.get("log_group")),
            priority=priority,
        )
