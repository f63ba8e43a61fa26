"""`render`: a delta as the bundle that `polyplane_apply` would send. Pure."""

from __future__ import annotations

from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY
from polyplane_ovs.flows import difference, write_bundle
from polyplane_ovs.layout import Layout
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.ports import Ports


def render(delta: Delta, options: OvsOptions) -> str:
    """Return what brings a bridge that holds ``delta.base`` to ``delta.target``; an empty base means a bridge without our flows.

    Port numbers and MAC addresses are known to the switch alone: ports are named here, and MAC addresses left out.
    """
    target = Layout.of(delta.target, Ports.on_paper(delta.target, options), options)
    if delta.base.same_content(EMPTY):
        return write_bundle(difference({}, target.book.flows))
    base = Layout.of(delta.base, Ports.on_paper(delta.base, options), options)
    return write_bundle(difference(base.book.flows, target.book.flows))
