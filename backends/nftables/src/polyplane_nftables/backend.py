"""`NftablesBackend`: the hooks. What is wanted comes from `Layout`, what is there from `Kernel`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from polyplane.errors import ApplyError, BackendUnavailable
from polyplane.hookspecs import Applied, Drift, RuleCount, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature
from polyplane.ir.program import EMPTY, Program
from polyplane_nftables.batch import Batch, write_batch, write_whole
from polyplane_nftables.drift import drifts_of
from polyplane_nftables.elements import encode
from polyplane_nftables.kernel import DriverMissing, Kernel, NftError, Output
from polyplane_nftables.layout import Layout
from polyplane_nftables.listing import NotUnderstood, parse_counters, parse_listing
from polyplane_nftables.native import Changes, Native, difference
from polyplane_nftables.options import NftablesOptions
from polyplane_nftables.owned import MARKER, is_marker, rule_id_of
from polyplane_nftables.render import render

_NAME: Final = "nftables"
_READ_BACK: Final = Output.STATELESS | Output.NUMERIC


class NftablesBackend:
    """Enforces programs through one nftables table; see README.md for how the IR maps to it."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self._options: Final = NftablesOptions.parse(options or {})
        self._kernel: Final = Kernel(self._options.netns)
        #: What is in force; None when we do not know.
        self._layout: Layout | None = None
        #: How this machine's nft lists rules that it lists unlike expected.
        self._bodies: dict[str, str] = {}

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Say whether nftables can be used here; it can do all that the IR asks for."""
        return Capabilities(supported=frozenset(Feature), missing=self._kernel.missing(), details=self._kernel.details())

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Return the batch from base to target."""
        return render(delta, self._options)

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Bring the target into force in one atomic batch.

        A delta that starts from what we hold becomes its native difference. Anything else, the first call and a repair above
        all, is compared with what is in the kernel.
        """
        layout, self._layout = self._layout, None
        if layout is not None and not delta.base.same_content(EMPTY) and layout.can_follow(delta):
            changes = layout.follow(delta)
            batch = write_batch(self._options.table, changes)
            try:
                self._run(batch, encode(self._options.table, changes, layout.native.kinds))
            except ApplyError as error:
                if error.retryable:
                    raise
                # The kernel does not hold what we thought: somebody else was there. Look and repair.
            else:
                self._layout = layout
                return _applied(batch)
        return self._apply_whole(delta.target)

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare our table with what the program asks for."""
        wanted = self._wanted(program).native
        try:
            found = self._read()
        except NotUnderstood as error:
            return (Drift(subject=f"table inet {self._options.table}", expected="as polyplane wrote it", found=str(error)),)
        if found is None:
            return (Drift(subject=f"table inet {self._options.table}", expected="present", found="missing"),)
        return drifts_of(difference(found, wanted, self._bodies))

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Read the counters of the allow and deny chains."""
        text = self._list(Output.NUMERIC, elements=False)
        packets: Counter[int] = Counter()
        size: Counter[int] = Counter()
        for chain, (packet_count, byte_count) in parse_counters(text or "").items():
            rule_id = rule_id_of(chain)
            if rule_id:
                packets[rule_id] += packet_count
                size[rule_id] += byte_count
        return tuple(RuleCount(rule_id=rule_id, packets=packets[rule_id], bytes=size[rule_id]) for rule_id in sorted(packets))

    @hookimpl
    def polyplane_show(self) -> str:
        """Return our table as nft lists it, without counts."""
        text = self._list(_READ_BACK)
        if text is None or not _is_ours(text):
            raise BackendUnavailable(f"there is no table inet {self._options.table} of ours; start the agent, or name its table and netns")
        return text

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Delete our table, of whatever layout; leave a table of that name that is not ours."""
        self._layout = None
        text = self._list(_READ_BACK, elements=False)
        if text is None or not _is_ours(text):
            return Applied(operations=0)
        batch = Batch(f"delete table inet {self._options.table}\n", {"tables": 1})
        self._run(batch)
        return _applied(batch)

    # --- whole states ---

    def _wanted(self, program: Program) -> Layout:
        if self._layout is not None and self._layout.program.same_content(program):
            return self._layout
        return Layout.of(program, log_group=self._options.log_group, priority=self._options.priority)

    def _apply_whole(self, program: Program) -> Applied:
        """Compare what should be with what is, and change what differs; replace the table if it cannot be changed into that."""
        layout = self._wanted(program)
        batch = self._batch_to(layout.native)
        if batch.operations:
            self._run(batch)
            self._learn(layout.native)
        self._layout = layout
        return _applied(batch)

    def _batch_to(self, wanted: Native) -> Batch:
        try:
            found = self._read()
        except NotUnderstood:
            return write_whole(self._options.table, wanted, replace=True)
        if found is None:
            return write_whole(self._options.table, wanted, replace=False)
        changes = difference(found, wanted, self._bodies)
        if MARKER not in found.chains or not _is_possible(changes):
            return write_whole(self._options.table, wanted, replace=True)
        return write_batch(self._options.table, changes)

    def _learn(self, wanted: Native) -> None:
        """Note how rules that we have just written are listed, where an nft of another version words them differently."""
        text = self._list(_READ_BACK, elements=False)
        try:
            found = parse_listing(text or "")
        except NotUnderstood:
            return
        bodies: dict[str, str] = {}
        for name, chain in wanted.chains.items():
            rules = found.chains[name].rules if name in found.chains else ()
            if len(rules) == len(chain.rules):
                bodies.update((ours.body, theirs.body) for ours, theirs in zip(chain.rules, rules, strict=True) if ours.body != theirs.body)
        self._bodies = bodies

    def _read(self) -> Native | None:
        """Read our table back; None if there is none.

        :raises NotUnderstood: it is ours, but not as this version writes it
        :raises ApplyError: it is not ours, or cannot be read
        """
        text = self._list(_READ_BACK)
        if text is None:
            return None
        if not _is_ours(text):
            raise ApplyError(
                f"table inet {self._options.table} is there and not ours (it has no chain {MARKER}); "
                f"delete it, or set another name: [backend.nftables] table",
                backend=_NAME,
                retryable=False,
            )
        return parse_listing(text)

    def _list(self, output: Output, *, elements: bool = True) -> str | None:
        read = self._kernel.list_table if elements else self._kernel.list_without_elements
        try:
            return read(self._options.table, output)
        except (NftError, DriverMissing, OSError) as error:
            raise _apply_error(error) from error

    def _run(self, batch: Batch, messages: Sequence[tuple[int, int, bytes]] | None = None) -> None:
        """Bring a batch into the kernel, in the shorter way if it can be said in these messages."""
        if not batch.operations:
            return
        try:
            if messages is not None:
                self._kernel.run_elements(messages)
            else:
                self._kernel.run(batch.text)
        except (NftError, DriverMissing, OSError) as error:
            raise _apply_error(error) from error


def _is_ours(listing: str) -> bool:
    words = (line.split() for line in listing.splitlines() if line.startswith("\tchain "))
    return any(is_marker(name) for _, name, *_ in words)


def _is_possible(changes: Changes) -> bool:
    """Whether the changes can be made in place: a set's type and a base chain's hook cannot be changed."""
    return all(old is None or new is None for old, new in changes.kinds.values()) and all(
        old is None or new is None or old.hook == new.hook for old, new in changes.chains.values()
    )


def _applied(batch: Batch) -> Applied:
    return Applied(operations=batch.operations, detail=batch.detail)


def _apply_error(error: NftError | DriverMissing | OSError) -> ApplyError:
    return ApplyError(str(error), backend=_NAME, retryable=isinstance(error, NftError) and error.transient)
