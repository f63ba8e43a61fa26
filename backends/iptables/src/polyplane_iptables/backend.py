"""`IptablesBackend`: the hooks. What is wanted comes from `Layout`, what is there from `Kernel`, the way from `plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from polyplane.errors import ApplyError
from polyplane.hookspecs import Applied, Drift, RuleCount, hookimpl
from polyplane.ir.cidr import BITS
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature
from polyplane.ir.program import EMPTY, Program
from polyplane_iptables.drift import drifts_of
from polyplane_iptables.kernel import Kernel, Runner, ToolError, ToolMissing
from polyplane_iptables.layout import Layout
from polyplane_iptables.listing import learn, parse_counters, parse_sets, parse_table, reworded
from polyplane_iptables.native import Filter, Native
from polyplane_iptables.options import IptablesOptions, Variant
from polyplane_iptables.owned import base_of
from polyplane_iptables.plan import Plan, plan
from polyplane_iptables.render import plan_to, render
from polyplane_iptables.variants import detect, missing

_NAME: Final = "iptables"
_FAILURES: Final = (ToolError, ToolMissing, OSError)


class IptablesBackend:
    """Enforces programs through iptables' filter table and ipsets; see README.md for how the IR maps to them."""

    def __init__(self, options: Mapping[str, object] | None = None, *, runner: Runner | None = None) -> None:
        self._options: Final = IptablesOptions.parse(options or {})
        self._kernel: Final = Kernel(self._options, runner)
        self._variant: Variant | None = None
        self._layout: Layout = Layout(log_group=self._options.log_group)
        #: What is in the kernel; None when we do not know.
        self._held: Native | None = None
        #: Sets that go by their other name.
        self._generations: dict[str, int] = {}
        #: Rules that this machine prints otherwise than they were written: printed to written.
        self._learned: dict[str, str] = {}

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Say whether iptables and ipset can be used here; together they can do all that the IR asks for."""
        problems = missing(self._kernel, self._options)
        variant = "?" if problems else str(self._detect())
        details = (("variant", variant), *self._kernel.details())
        return Capabilities(supported=frozenset(Feature), missing=problems, details=details)

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Return the inputs of the tools from base to target."""
        return render(delta, self._options)

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Bring the target into force, in an order that is safe to break off.

        A delta that starts from what we hold becomes its native difference. Anything else, the first call and a repair above
        all, is compared with what is in the kernel.
        """
        held, self._held = self._held, None
        try:
            if held is not None and not delta.base.same_content(EMPTY) and self._layout.holds(delta.base):
                self._layout.follow(delta)
                try:
                    return self._bring(held, Variant(self._variant or Variant.NFT))
                except ToolError as error:
                    if error.transient:
                        raise
                    # The kernel does not hold what we thought: somebody else was there. Look and repair.
            else:
                self._layout.follow(delta)
            return self._apply_whole()
        except _FAILURES as error:
            raise _apply_error(error) from error

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare what is ours in the kernel, in both variants, with what the program asks for."""
        layout = self._layout if self._layout.holds(program) else Layout.of(program, log_group=self._options.log_group)
        try:
            variant = self._detect()
            found = self._read(variant)
            wanted = layout.native(self._generations_in(found, layout))
            found = self._reworded(found, wanted)
            strays = self._strays(variant.other)
        except _FAILURES as error:
            raise _apply_error(error) from error
        drifts = drifts_of(found, wanted)
        if strays:
            drifts = (*drifts, Drift(subject=f"iptables-{variant.other}", expected="nothing of ours", found="chains of ours"))
        return drifts

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Read the counters of the rules that allow and deny."""
        packets: Counter[int] = Counter()
        size: Counter[int] = Counter()
        try:
            for family in BITS:
                for rule_id, packet_count, byte_count in parse_counters(self._kernel.save(self._detect(), family, counters=True)):
                    packets[rule_id] += packet_count
                    size[rule_id] += byte_count
        except _FAILURES as error:
            raise _apply_error(error) from error
        return tuple(RuleCount(rule_id=rule_id, packets=packets[rule_id], bytes=size[rule_id]) for rule_id in sorted(packets))

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Remove our chains, jumps and sets, from both variants."""
        self._held = None
        detail: Counter[str] = Counter()
        try:
            for variant in Variant:
                detail += self._remove_chains(variant)
            sets = parse_sets(self._kernel.save_sets())
            doomed = sorted(sets.members.keys() | sets.strangers)
            detail["sets"] += len(doomed) - len(self._kernel.destroy_sets(doomed))
        except _FAILURES as error:
            raise _apply_error(error) from error
        return Applied(operations=detail.total(), detail=dict(+detail))

    # --- bringing about ---

    def _detect(self) -> Variant:
        if self._variant is None:
            self._variant = detect(self._kernel, self._options)
        return self._variant

    def _apply_whole(self) -> Applied:
        """Compare what should be with what is, in both variants, and change what differs."""
        variant = self._detect()
        found = self._read(variant)
        self._generations = self._generations_in(found, self._layout)
        found = self._reworded(found, self._layout.native(self._generations))
        return self._bring(found, variant, whole=True)

    def _bring(self, found: Native, variant: Variant, *, whole: bool = False) -> Applied:
        """Carry out the plan from what was found to the layout's program."""
        made, wanted, generations = plan_to(self._layout, found, self._generations)
        for step in made.steps:
            self._kernel.take(variant, step)
        detail = made.detail
        if whole:
            # Now that the rules are in force here, ours of the other variant are in the way: they would decide as well.
            detail = detail + self._remove_chains(variant.other)
        kept = self._kernel.destroy_sets(made.destroy)
        if whole and any(step.tool for step in made.steps):
            self._learn(variant, wanted)
        self._generations = generations
        self._held = _with_sets(wanted, found, kept)
        return Applied(operations=detail.total(), detail=dict(detail))

    def _remove_chains(self, variant: Variant) -> Counter[str]:
        """Remove our chains and jumps from one variant, where it is installed."""
        made = Plan()
        if self._kernel.has(variant):
            found = Native(filters={family: parse_table(self._kernel.save(variant, family)) for family in BITS})
            made = plan(found, Native())
            for step in made.steps:
                self._kernel.take(variant, step)
        return made.detail

    # --- looking ---

    def _read(self, variant: Variant) -> Native:
        sets = parse_sets(self._kernel.save_sets())
        filters = {family: parse_table(self._kernel.save(variant, family)) for family in BITS}
        return Native(filters, sets.members, frozenset(sets.strangers))

    def _reworded(self, found: Native, wanted: Native) -> Native:
        filters = {family: reworded(found.filters[family], wanted.filters[family], self._learned) for family in BITS}
        return Native(filters, found.sets, found.strangers)

    def _generations_in(self, found: Native, layout: Layout) -> dict[str, int]:
        """Return which sets already go by their other name, and those that must because the first one is taken."""
        asked = found.referenced()
        generations = {}
        for name in layout.native({}).sets:
            other = f"{name}-1"
            if base_of(other)[0] == name and (name in found.strangers or (other in found.sets and other in asked)):
                generations[name] = 1
        return generations

    def _strays(self, variant: Variant) -> bool:
        if not self._kernel.has(variant):
            return False
        return any(parse_table(self._kernel.save(variant, family)) != Filter() for family in BITS)

    def _learn(self, variant: Variant, wanted: Native) -> None:
        """Note how rules that we have just written are printed, where an iptables of another version words them differently."""
        learned: dict[str, str] = {}
        for family in BITS:
            printed = reworded(parse_table(self._kernel.save(variant, family)), wanted.filters[family], {})
            learned.update(learn(printed, wanted.filters[family]))
        self._learned = learned


def _with_sets(wanted: Native, found: Native, kept: Sequence[str]) -> Native:
    """Return what is in the kernel if some sets could not be destroyed: they are to be tried again next time."""
    sets = {**wanted.sets, **{name: found.sets[name] for name in kept if name in found.sets}}
    return Native(wanted.filters, sets, found.strangers & frozenset(kept))


def _apply_error(error: Exception) -> ApplyError:
    return ApplyError(str(error), backend=_NAME, retryable=isinstance(error, ToolError) and error.transient)
