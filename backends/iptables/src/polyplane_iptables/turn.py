"""`turn`: whether a change needs another epoch, and how each family's table comes to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from polyplane.ir.cidr import BITS
from polyplane.ir.program import Established, Options
from polyplane_iptables.base import add_forward
from polyplane_iptables.epochs import Marking, epoch_in, following, present
from polyplane_iptables.native import Filter, Native
from polyplane_iptables.owned import FROM, TO, epoch_set_name
from polyplane_iptables.setplan import closes


@dataclass(frozen=True, slots=True)
class Turn:
    """``wanted``: what is to be in the end, with marks in the bits of ``mask``.

    ``resting``: by family, the table that believes no mark, where marks have to be cleared first.
    """

    wanted: Native
    mask: int = 0
    resting: Mapping[int, Filter] = field(default_factory=dict)


def with_present_epochs(found: Native, wanted: Native, options: Options, mask: int) -> Native:
    """Return what is wanted with the epochs that are in force, with the next ones where none is."""
    epochs = {family: present(found, family, mask) or following(found, family, mask) or 1 for family in _families(wanted, options, mask)}
    return marked(wanted, options, mask, epochs)


def turn(found: Native, wanted: Native, options: Options, mask: int) -> Turn:
    """Return how to go on, given what is wanted with the present epochs."""
    epochs: dict[int, int] = {}
    resting: dict[int, Filter] = {}
    for family in _families(wanted, options, mask):
        epoch = present(found, family, mask)
        if epoch is None or closes(found, wanted, family):
            epoch = following(found, family, mask)
        if epoch is None:
            epoch, idle = 1, found.filters[family]
            if epoch_in(idle, mask) != 0:
                idle = marked(wanted, options, mask, {family: 0}).filters[family]
            resting[family] = idle
        epochs[family] = epoch
    return Turn(marked(wanted, options, mask, epochs), mask, resting)


def _families(wanted: Native, options: Options, mask: int) -> list[int]:
    """Return the families whose packets are asked about again and again."""
    if not mask or options.established is not Established.RECHECK:
        return []
    return [family for family in BITS if not wanted.filters[family].chains.keys().isdisjoint((FROM, TO))]


def marked(native: Native, options: Options, mask: int, epochs: Mapping[int, int]) -> Native:
    """Return what is wanted with these families' connections marked; epoch 0: they forget, and no mark is believed."""
    filters = dict(native.filters)
    for family, epoch in epochs.items():
        filters[family] = Filter(dict(native.filters[family].chains), native.filters[family].jumps)
        add_forward(filters[family], family, options, Marking(mask, epoch))
    sets = {epoch_set_name(family, mask): frozenset({epoch}) for family, epoch in epochs.items() if epoch}
    return replace(native, filters=filters, epochs=sets)
