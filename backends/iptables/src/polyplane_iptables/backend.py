"""`IptablesBackend`: the hooks. What is wanted comes from `Layout`, what is there from `Kernel`, the way from `plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from polyplane.errors import ApplyError
from polyplane.hookspecs import Applied, Drift, Fill, PacketEvent, RuleCount, hookimpl
from polyplane.ir.cidr import BITS
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature
from polyplane.ir.program import EMPTY, Program
from polyplane_iptables.connmarks import MarksStuck
from polyplane_iptables.counting import Ledger
from polyplane_iptables.decoder import MOST_RULES, Decoder
from polyplane_iptables.drift import drifts_of
from polyplane_iptables.guard import MarkGuard
from polyplane_iptables.kernel import PORTS, SET_TYPES, Kernel, Runner, ToolError, ToolMissing
from polyplane_iptables.layout import Layout
from polyplane_iptables.listing import Count, learn, parse_counters, parse_sets, parse_table, reworded
from polyplane_iptables.native import Filter, Native
from polyplane_iptables.nflog import Listener
from polyplane_iptables.options import IptablesOptions, Variant
from polyplane_iptables.owned import base_of
from polyplane_iptables.plan import Plan, plan
from polyplane_iptables.render import plan_to, render
from polyplane_iptables.setplan import MAX_ELEMENTS
from polyplane_iptables.show import shown
from polyplane_iptables.steps import MOST_PARTS
from polyplane_iptables.turn import with_present_epochs
from polyplane_iptables.variants import detect, missing

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.iptables")
_NAME: Final = "iptables"
_FAILURES: Final = (ToolError, ToolMissing, OSError)


class IptablesBackend:
    """Enforces programs through iptables' filter table and ipsets; see README.md for how the IR maps to them."""

    def __init__(self, options: Mapping[str, object] | None = None, *, runner: Runner | None = None) -> None:
        self._options: Final = IptablesOptions.parse(options or {})
        self._kernel: Final = Kernel(self._options, runner)
        self._variant: Variant | None = None
        self._guard: Final = MarkGuard(self._kernel, self._options.recheck_mark)
        self._style = self._options.style()
        self._layout: Layout = Layout(self._style)
        self._decoder: Final = Decoder(self._options)
        self._ledger: Final = Ledger()
        self._listener: Listener | None = None
        self._deaf = False
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
        details = (("variant", variant), *self._kernel.details(), *self._notes(problems))
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
            self._detect()
            if delta.base.same_content(EMPTY) or not self._layout.holds(delta.base):
                held = None
            self._layout.follow(delta)
            if held is not None:
                try:
                    return self._bring(held, Variant(self._variant or Variant.NFT))
                except ToolError as error:
                    if error.transient:
                        raise
                    # The kernel does not hold what we thought: somebody else was there. Look and repair.
                except MarksStuck as error:
                    self._guard.give_up(str(error))
            return self._apply_whole()
        except _FAILURES as error:
            raise _apply_error(error) from error

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare what is ours in the kernel, in both variants, with what the program asks for."""
        try:
            variant = self._detect()
            layout = self._layout if self._layout.holds(program) else Layout.of(program, self._style)
            drifts = self._drifts(layout, variant)
            strays = self._strays(variant.other)
        except _FAILURES as error:
            raise _apply_error(error) from error
        if strays:
            drifts = (*drifts, Drift(subject=f"iptables-{variant.other}", expected="nothing of ours", found="chains of ours"))
        return drifts

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Read the counters of the rules that allow and deny; they go on when a rule's chain is written anew."""
        try:
            return self._ledger.read(self._counts())
        except _FAILURES as error:
            raise _apply_error(error) from error

    @hookimpl
    def polyplane_show(self) -> str:
        """Return our chains and jumps of both families as ``iptables-save`` prints them, and our sets as ``ipset save`` does."""
        try:
            return shown(self._kernel, self._detect())
        except _FAILURES as error:
            raise _apply_error(error) from error

    @hookimpl
    def polyplane_fill(self) -> Sequence[Fill]:
        """Say how full the fullest set is."""
        most = max(map(len, self._held.sets.values()), default=0) if self._held is not None else 0
        return (Fill(name="largest ipset", used=most, capacity=MAX_ELEMENTS, remedy="let policies select fewer addresses"),)

    @hookimpl
    def polyplane_events(self) -> Sequence[PacketEvent]:
        """Return packets that rules logged, and with `log_denied` those denied, if they go to an nflog group."""
        group = self._options.log_group
        if group is None or self._deaf:
            return ()
        try:
            if self._listener is None:
                self._listener = Listener(self._options.netns, group)
            return tuple(self._listener.events())
        except OSError as error:
            self._deaf = True
            _log.warning("the nflog group cannot be listened to, packets are not told of", group=group, reason=str(error))
            return ()

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Remove our chains, jumps and sets, from both variants."""
        self._held = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        detail: Counter[str] = Counter()
        try:
            for variant in Variant:
                detail += self._remove_chains(variant)
            sets = parse_sets(self._kernel.save_sets())
            doomed = sorted({*sets.members, *sets.ports, *sets.epochs, *sets.strangers})
            detail["sets"] += len(doomed) - len(self._kernel.destroy_sets(doomed))
        except _FAILURES as error:
            raise _apply_error(error) from error
        return Applied(operations=detail.total(), detail=dict(+detail))

    # --- bringing about ---

    def _detect(self) -> Variant:
        """Return the variant to work in; the first call finds it out, and which sets there are."""
        if self._variant is None:
            self._variant = detect(self._kernel, self._options)
            if PORTS not in self._kernel.set_types():
                self._style = replace(self._style, port_sets=False)
                self._layout = Layout(self._style)
        return self._variant

    def _apply_whole(self, *, last: bool = False) -> Applied:
        """Compare what should be with what is, in both variants, and change what differs."""
        variant = self._detect()
        found = self._read(variant)
        self._generations = self._generations_in(found, self._layout)
        found = self._reworded(found, self._wanted(found, self._layout, self._generations))
        try:
            applied = self._bring(found, variant, whole=True)
        except MarksStuck as error:
            self._guard.give_up(str(error))
            return self._apply_whole(last=True)
        if self._guard.leftovers and not last:
            more = self._apply_whole(last=True)
            return Applied(operations=applied.operations + more.operations, detail=dict(Counter(applied.detail) + Counter(more.detail)))
        return applied

    def _bring(self, found: Native, variant: Variant, *, whole: bool = False) -> Applied:
        """Carry out the plan from what was found to the layout's program."""
        made, wanted, generations = plan_to(self._layout, found, self._generations, self._guard.mask)
        if self._ledger.worth_reading and any(made.rewritten.values()):
            self._ledger.look(self._counts())
        for step in made.steps:
            self._kernel.take(variant, step)
        for family, chains in made.rewritten.items():
            self._ledger.lose(family, chains)
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
        texts = {family: self._kernel.save(variant, family) for family in BITS}
        self._guard.look(variant, texts)
        filters = {family: parse_table(text) for family, text in texts.items()}
        return Native(filters, sets.members, sets.ports, frozenset(sets.strangers), sets.epochs)

    def _wanted(self, found: Native, layout: Layout, generations: Mapping[str, int]) -> Native:
        """Return what should be in the kernel, in the epochs of what is."""
        return with_present_epochs(found, layout.native(generations), layout.program.options, self._guard.mask)

    def _reworded(self, found: Native, wanted: Native) -> Native:
        filters = {family: reworded(found.filters[family], wanted.filters[family], self._learned) for family in BITS}
        return replace(found, filters=filters)

    def _drifts(self, layout: Layout, variant: Variant) -> tuple[Drift, ...]:
        found = self._read(variant)
        wanted = self._wanted(found, layout, self._generations_in(found, layout))
        drifts = drifts_of(self._reworded(found, wanted), wanted)
        if not drifts and variant is Variant.LEGACY:
            self._look_again(found, wanted)
        return drifts

    def _look_again(self, found: Native, wanted: Native) -> None:
        """Ask python-iptables as well. What only one of two readers sees cannot be repaired: it is told."""
        if (
            not self._decoder.usable
            or sum(len(chain.rules) for table in wanted.filters.values() for chain in table.chains.values()) > MOST_RULES
        ):
            return
        present = [family for family in BITS if "filter" in self._kernel.legacy_tables(family)]
        filters = {**found.filters, **(self._decoder.read(present) or {})}
        for drift in drifts_of(self._reworded(replace(found, filters=filters), wanted), wanted)[:1]:
            self._decoder.complain(
                "python-iptables sees what iptables-legacy-save does not", f"{drift.subject}: {drift.found}, not {drift.expected}"
            )

    def _counts(self) -> dict[int, Iterable[Count]]:
        variant = self._detect()
        return {family: parse_counters(self._kernel.save(variant, family, counters=True)) for family in BITS}

    def _notes(self, problems: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield what people may want to know about this machine."""
        if problems:
            return
        have = self._kernel.set_types()
        yield (
            "set types",
            ", ".join(kind if kind in have else f"{kind} (missing: long lists of ports become several rules)" for kind in SET_TYPES),
        )
        if self._options.recheck_mark:
            self._read(self._detect())
        yield "open connections", f"rechecked {self._guard.note}"
        yield "tiers that pass", f"any number: those beyond {MOST_PARTS} chains are multiplied out"
        yield "audit of legacy tables", "python-iptables and iptables-legacy-save" if self._decoder.usable else "iptables-legacy-save"

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
    ports = {**wanted.ports, **{name: found.ports[name] for name in kept if name in found.ports}}
    epochs = {**wanted.epochs, **{name: found.epochs[name] for name in kept if name in found.epochs}}
    return Native(wanted.filters, sets, ports, found.strangers & frozenset(kept), epochs)


def _apply_error(error: Exception) -> ApplyError:
    return ApplyError(str(error), backend=_NAME, retryable=isinstance(error, ToolError) and error.transient)
