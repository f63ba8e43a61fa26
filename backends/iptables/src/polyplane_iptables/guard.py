"""`MarkGuard`: whether our bits of connections' marks are ours alone. Where others write them, connections are rechecked by direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import structlog

from polyplane.ir.cidr import BITS
from polyplane_iptables.kernel import TABLES, Kernel, ToolError
from polyplane_iptables.options import Variant
from polyplane_iptables.others import nft_writers, writers
from polyplane_iptables.owned import PREFIX

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.iptables")


class MarkGuard:
    """Looks through the tables whenever they are read whole; without a mask it does nothing."""

    def __init__(self, kernel: Kernel, mask: int) -> None:
        self._kernel: Final = kernel
        self._mask: Final = mask
        self._broken = ""
        self._reason = ""
        self._told = ""
        self.leftovers = False

    @property
    def mask(self) -> int:
        """The bits to mark connections with, 0 if there are none to rely on."""
        return 0 if self._reason else self._mask

    @property
    def note(self) -> str:
        """How connections are rechecked, for people."""
        return f"by direction: {self._reason}" if self._reason else f"by mark {self._mask:#x}" if self._mask else "by direction"

    def look(self, variant: Variant, texts: Mapping[int, str]) -> None:
        """Look for rules that write our bits, in both variants and, where ``nft`` is installed, in nftables' own tables.

        :param variant: the one that we work in
        :param texts: what its filter tables say, by family
        """
        if not self._mask:
            return
        others = list(self._writers(variant, texts)) if not self._broken else []
        # Chains of ours in the other variant go with this apply, and what they write with them.
        self.leftovers = bool(others) and all(PREFIX in line for line in others)
        self._decide(self._broken or (f"another's rule writes bits of {self._mask:#x}: {others[0]}" if others else ""))

    def give_up(self, reason: str) -> None:
        """Rely on no mark from now on, as long as this process lives."""
        self._broken = reason
        self._decide(reason)

    def _decide(self, reason: str) -> None:
        self._reason = reason
        if self.leftovers or reason == self._told:
            return
        self._told = reason
        if reason:
            _log.error("open connections are rechecked by direction, not by mark", reason=reason)
        else:
            _log.info("open connections are rechecked by mark again", mask=f"{self._mask:#x}")

    def _writers(self, variant: Variant, texts: Mapping[int, str]) -> Iterator[str]:
        for one in Variant:
            if not self._kernel.has(one):
                continue
            for family in BITS:
                for table in TABLES:
                    own = one is variant and table == "filter"
                    try:
                        text = texts[family] if own else self._kernel.save(one, family, table=table)
                    except ToolError as error:
                        yield f"perhaps, for nobody can read the table {table} ({error})"
                        continue
                    yield from (f"{table} (iptables-{one}): {line}" for line in writers(text, self._mask, ours=own))
        try:
            for name, text in self._kernel.nft_tables():
                yield from (f"{name} (nft): {line}" for line in nft_writers(text, self._mask))
        except ToolError as error:
            yield f"perhaps, for nobody can read nftables' own tables ({error})"
