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
from polyplane_iptables.turn import turn, with_present_epochs

_HEADS = {0: "# ipset restore -exist", 4: "# iptables-restore --noflush", 6: "# ip6tables-restore --noflush"}


def render(delta: Delta, options: IptablesOptions) -> str:
    """Return what brings a node that holds ``delta.base`` to ``delta.target``; an empty base means that there is nothing of ours."""
    style, mask = options.style(), options.recheck_mark
    found = Native()
    if not delta.base.same_content(EMPTY):
        found = with_present_epochs(Native(), Layout.of(delta.base, style).native({}), delta.base.options, mask)
    layout = Layout(style)
    layout.follow(whole(delta.target))
    made, _, _ = plan_to(layout, found, {}, mask)
    steps = [*made.steps, *([Step(0, destroy_text(made.destroy))] if made.destroy else [])]
    return "".join(map(_text, steps))


def _text(step: Step) -> str:
    if step.clears:
        return f"# connections of IPv{step.tool}: clear {step.clears:#x} of their marks\n"
    return f"{_HEADS[step.tool]}\n{step.text}"


def plan_to(layout: Layout, found: Native, generations: dict[str, int], mask: int = 0) -> tuple[Plan, Native, dict[str, int]]:
    """Return the plan from what is there to the layout's program, what will be there, and which names the sets then have.

    :param mask: bits of connections' marks for the recheck by mark; 0: by direction
    """
    options = layout.program.options
    wanted = with_present_epochs(found, layout.native(generations), options, mask)
    unclear = unclear_sets(found, wanted)
    if unclear:
        generations = dict(generations)
        for name in unclear:
            base, generation = base_of(name)
            generations[base] = 1 - generation
        wanted = with_present_epochs(found, layout.native(generations), options, mask)
    marks = turn(found, wanted, options, mask)
    return plan(found, wanted, marks), marks.wanted, {base: one for base, one in generations.items() if one}
