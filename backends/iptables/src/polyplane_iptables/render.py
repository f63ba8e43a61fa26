"""`render`: a delta as the inputs of the tools, one after the other. Pure."""

from __future__ import annotations

from polyplane.backend_kit.deltas import whole
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY
from polyplane_iptables.layout import Layout
from polyplane_iptables.native import Native
from polyplane_iptables.options import IptablesOptions
from polyplane_iptables.owned import base_of
from polyplane_iptables.plan import Plan, Step, destroy_text, plan
from polyplane_iptables.setplan import unclear_sets

_HEADS = {0: "# ipset restore -exist", 4: "# iptables-restore --noflush", 6: "# ip6tables-restore --noflush"}


def render(delta: Delta, options: IptablesOptions) -> str:
    """Return what brings a node that holds ``delta.base`` to ``delta.target``; an empty base means that there is nothing of ours."""
    style = options.style()
    found = Native()
    if not delta.base.same_content(EMPTY):
        found = Layout.of(delta.base, style).native({})
    layout = Layout(style)
    layout.follow(whole(delta.target))
    made, _, _ = plan_to(layout, found, {})
    steps = [*made.steps, *([Step(0, destroy_text(made.destroy))] if made.destroy else [])]
    return "".join(f"{_HEADS[step.tool]}\n{step.text}" for step in steps)


def plan_to(layout: Layout, found: Native, generations: dict[str, int]) -> tuple[Plan, Native, dict[str, int]]:
    """Return the plan from what is there to the layout's program, what will be there, and which names the sets then have."""
    wanted = layout.native(generations)
    unclear = unclear_sets(found, wanted)
    if unclear:
        generations = dict(generations)
        for name in unclear:
            base, generation = base_of(name)
            generations[base] = 1 - generation
        wanted = layout.native(generations)
    return plan(found, wanted), wanted, {base: one for base, one in generations.items() if one}
