"""`render`: a delta as the text of one nft batch. Pure."""

from __future__ import annotations

from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY
from polyplane_nftables.batch import write_batch, write_whole
from polyplane_nftables.layout import Layout
from polyplane_nftables.native import difference
from polyplane_nftables.options import NftablesOptions


def render(delta: Delta, options: NftablesOptions) -> str:
    """Return what brings a table that holds ``delta.base`` to ``delta.target``; an empty base means that there is no table."""
    target = Layout.of(delta.target, log_group=options.log_group, priority=options.priority).native
    if delta.base.same_content(EMPTY):
        return write_whole(options.table, target, replace=False).text
    base = Layout.of(delta.base, log_group=options.log_group, priority=options.priority).native
    return write_batch(options.table, difference(base, target)).text
