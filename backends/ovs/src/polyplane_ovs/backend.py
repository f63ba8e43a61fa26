"""`OvsBackend`: the hooks. What is wanted comes from `Layout`, what is there from `Switch` and `Database`."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from polyplane.backend_kit.garbage import uncollected
from polyplane.errors import ApplyError
from polyplane.hookspecs import Applied, Drift, Fill, PacketEvent, RuleCount, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature, Unsupported, Vantage
from polyplane.ir.program import EMPTY, Program
from polyplane_ovs.database import Bridge, Database, DatabaseError
from polyplane_ovs.drift import drifts_of
from polyplane_ovs.flows import Changes, Key, Value, difference, write_bundle
from polyplane_ovs.kernel import Switch, SwitchError
from polyplane_ovs.layout import Layout
from polyplane_ovs.listing import NotUnderstood, parse_flows
from polyplane_ovs.options import OvsOptions
from polyplane_ovs.owned import TABLES, Stage, is_ours, rule_id_of
from polyplane_ovs.pipeline import LEARNED_MOST
from polyplane_ovs.render import render
from polyplane_ovs.settle import settle
from polyplane_ovs.told import Told
from polyplane_ovs.watch import Watcher

_NAME: Final = "ovs"
_SECURE: Final = "secure"
#: How the action begins that tells us of packets.
_TELLING: Final = "controller("
#: What takes an OpenFlow controller, which is us, if we may hold a connection.
_UNWATCHED: Final = tuple(
    Unsupported(
        feature, f"Open vSwitch cannot {what} by itself, and with [backend.ovs] watch = false nobody does it in its place; {instead}"
    )
    for feature, what, instead in (
        (Feature.REJECT, "make a TCP reset or an ICMP error", "denied packets are dropped"),
        (Feature.LOG, "write a log", "packets of such rules are only counted"),
    )
)

#: The backend that looks after each bridge, by socket. Another one of this process for the same bridge takes over.
_in_charge: Final[weakref.WeakValueDictionary[str, OvsBackend]] = weakref.WeakValueDictionary()


class OvsBackend:
    """Enforces programs through the flows of one bridge; see README.md for how the IR maps to them."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self._options: Final = OvsOptions.parse(options or {})
        self._switch: Final = Switch(self._options)
        self._database: Final = Database(self._options)
        # nobody says when a backend is not used any more
        weakref.finalize(self, self._database.close)
        #: What is in force; None when we do not know.
        self._layout: Layout | None = None
        #: The switch may lack what the layout has: the next change compares with the switch.
        self._stale = False
        self._watcher: Watcher | None = None
        self._told: Final = Told(self._options)
        #: Whether our meter has been made in the switch that runs.
        self._metered = False
        #: Held by whoever uses any of the above: the agent's thread, or the watcher's.
        self._lock: Final = threading.RLock()

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Say whether Open vSwitch can be used here, and what it cannot do."""
        gaps = () if self._options.watch else _UNWATCHED
        details = [("ovs-ofctl", self._switch.version()), ("bridge", self._options.bridge)]
        database = Database(self._options)  # another connection: what is read from this one, the watcher does not hear
        try:
            bridge = database.bridge()
        except DatabaseError:
            details.append(("ovsdb-server", "does not answer"))
        else:
            details += [("ovs-vswitchd", database.version), ("datapath", bridge.datapath_type if bridge else "no such bridge")]
        finally:
            database.close()
        return Capabilities(
            supported=frozenset(Feature) - {gap.feature for gap in gaps},
            unsupported=gaps,
            missing=self._switch.missing(),
            details=tuple(details),
            vantage=Vantage.SWITCH,
        )

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Return the bundle from base to target, with ports by name."""
        return render(delta, self._options)

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Bring the target into force in one atomic bundle.

        A delta that starts from what we hold becomes its difference in flows. Anything else, the first call and a repair above
        all, is compared with what is in the switch.
        """
        self._take_charge()
        with self._lock:
            bridge = self._bridge()
            layout, self._layout = self._layout, None
            applied = None
            if not self._stale and layout is not None and not delta.base.same_content(EMPTY) and layout.can_follow(delta):
                layout.move(bridge.ports)
                layout.follow(delta)
                try:
                    applied = self._run(layout.book.take_changes())
                except ApplyError as error:
                    if error.retryable:
                        raise
                    # The switch does not hold what we thought: somebody else was there. Look and repair.
            if applied is None:
                layout, applied = self._apply_whole(delta.target, bridge, layout)
            self._layout, self._stale = layout, False
            self._watch()
            if bridge.fail_mode != _SECURE:
                raise self._insecure(bridge)
        return applied

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare the flows with what the program asks for."""
        with self._lock:
            try:
                bridge = self._bridge()
                if self._watcher is not None and self._layout is not None:
                    # This has read the news that the watcher waits for, so it does the watcher's work too.
                    self._catch_up(self._layout, bridge)
                wanted = self._wanted(program, bridge, self._layout).book.flows
                found = self._read()
            except ApplyError as error:
                return (Drift(subject=f"bridge {self._options.bridge}", expected="there, with our flows", found=str(error)),)
        drifts = list(drifts_of(difference(found, wanted)))
        if bridge.fail_mode != _SECURE:
            drifts.append(
                Drift(subject=f"fail_mode of bridge {self._options.bridge}", expected=_SECURE, found=bridge.fail_mode or "not set")
            )
        return drifts

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Read the counters of the flows that decide; the cookie has the rule."""
        packets: Counter[int] = Counter()
        size: Counter[int] = Counter()
        try:
            listing = self._switch.flows(only_ours=True, counters=True)
        except SwitchError as error:
            raise _apply_error(error) from error
        for listed in parse_flows(listing):
            rule_id = rule_id_of(listed.value.cookie)
            if rule_id:
                packets[rule_id] += listed.packets
                size[rule_id] += listed.bytes
        return tuple(RuleCount(rule_id=rule_id, packets=packets[rule_id], bytes=size[rule_id]) for rule_id in sorted(packets))

    @hookimpl
    def polyplane_show(self) -> str:
        """Return our flows as the switch lists them, without what it has learned by itself."""
        with self._lock:
            found = self._read()
        return write_bundle(difference({}, {key: value for key, value in found.items() if is_ours(value.cookie)}))

    @hookimpl
    def polyplane_fill(self) -> Sequence[Fill]:
        """Return how many ways the switch has learned; once there are too many, replies on new ones are dropped."""
        try:
            ways = self._switch.count(self._options.first_table + Stage.LEARNED)
        except SwitchError:
            return ()
        return (Fill(name="learned ways of SCTP and other protocols", used=ways, capacity=LEARNED_MOST),)

    @hookimpl
    def polyplane_events(self) -> Sequence[PacketEvent]:
        """Return the packets that the switch has told of: of log rules, and with ``tell_denied`` all that are denied."""
        return self._told.events()

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Remove all flows with our mark, of whatever generation and in whatever table, and our connections."""
        self._take_charge()
        self._retire()
        with self._lock:
            try:
                found = self._switch.count()
                if found:
                    self._switch.remove_ours()
                    self._switch.remove_meter()
                    self._switch.forget_connections()
            except SwitchError as error:
                if error.transient:
                    return Applied(operations=0)  # without ovs-vswitchd there are no flows
                raise _apply_error(error) from error
        return Applied(operations=found, detail={"flows": found} if found else {})

    # --- whole states ---

    def _apply_whole(self, program: Program, bridge: Bridge, held: Layout | None) -> tuple[Layout, Applied]:
        """Compare what should be with what is, and change what differs."""
        layout = self._wanted(program, bridge, held)
        found = self._read()
        strange = [key for key, value in found.items() if not is_ours(value.cookie)]
        if strange and len(strange) == len(found):
            raise ApplyError(
                f"bridge {self._options.bridge}: table {strange[0].table} has flows that are not ours ({len(strange)} in our tables); "
                f"let them move, or set first_table to {TABLES} tables that nobody uses: [backend.ovs] first_table",
                backend=_NAME,
                retryable=True,
            )
        return layout, self._run(difference(found, layout.book.flows))

    def _wanted(self, program: Program, bridge: Bridge, held: Layout | None) -> Layout:
        if held is None or not held.program.same_content(program):
            return Layout.of(program, bridge.ports, self._options)
        held.move(bridge.ports)
        self._stale = self._stale or bool(held.book.take_changes())
        return held

    def _read(self) -> dict[Key, Value]:
        """Return our flows, and those of others in our tables.

        Not what the switch has learned by itself, nor what lies at priority 0 of the first table, which is never reached.
        """
        first = self._options.first_table
        learned = first + Stage.LEARNED
        try:
            listed = list(parse_flows(self._switch.flows()))
        except (SwitchError, NotUnderstood) as error:
            raise _apply_error(error) from error
        return {
            flow.key: flow.value
            for flow in listed
            if (flow.key.table != learned if is_ours(flow.value.cookie) else first <= flow.key.table < first + TABLES)
            and (is_ours(flow.value.cookie) or flow.key[:2] != (first, 0))
        }

    def _bridge(self) -> Bridge:
        """Return the bridge.

        :raises ApplyError: it is not there, or ovsdb-server does not answer; both may pass
        """
        try:
            bridge = self._database.bridge()
        except DatabaseError as error:
            raise ApplyError(str(error), backend=_NAME, retryable=True) from error
        if bridge is None:
            name = self._options.bridge
            raise ApplyError(
                f"there is no bridge {name}: create it (ovs-vsctl add-br {name} -- set-fail-mode {name} secure), or set [backend.ovs] bridge",
                backend=_NAME,
                retryable=True,
            )
        return bridge

    def _run(self, changes: Changes) -> Applied:
        if changes:
            bundle = write_bundle(changes)
            try:
                if not self._metered and _TELLING in bundle:
                    self._switch.ensure_meter()
                    self._metered = True
                self._switch.run(bundle)
            except SwitchError as error:
                raise _apply_error(error) from error
            settle(self._options)
        return Applied(operations=len(changes), detail={"flows": len(changes)} if changes else {})

    def _insecure(self, bridge: Bridge) -> ApplyError:
        name = self._options.bridge
        return ApplyError(
            f"the policies are in force, but bridge {name} has fail_mode {bridge.fail_mode or 'not set'}: when ovs-vswitchd starts again it "
            f"would forward everything until they are back; ovs-vsctl set-fail-mode {name} secure",
            backend=_NAME,
            retryable=True,
        )

    # --- between two calls of the agent ---

    def _take_charge(self) -> None:
        """See that no other backend of this process, one that was to be replaced, still looks after the bridge."""
        other = _in_charge.get(self._options.management)
        if other is not None and other is not self:
            other._retire()  # noqa: SLF001 (it is one of us)
        _in_charge[self._options.management] = self

    def _retire(self) -> None:
        with self._lock:
            watcher, self._watcher = self._watcher, None
            self._layout = None
        if watcher is not None:
            watcher.stop()
        with self._lock:
            self._database.close()

    def _watch(self) -> None:
        if self._watcher is None and self._options.watch:
            # the thread must not keep a backend alive that nobody uses any more
            follow, descriptor = weakref.WeakMethod(self._follow), weakref.WeakMethod(self._descriptor)
            self._watcher = Watcher(
                self._options.management,
                descriptor=lambda: None if (method := descriptor()) is None else method(),
                restarted=lambda: (method := follow()) is None or method(whole=True),
                moved=lambda: (method := follow()) is None or method(whole=False),
                told=self._told.take,
            )
            weakref.finalize(self, self._watcher.abandon)
            self._watcher.start()

    def _descriptor(self) -> int | None:
        return self._database.descriptor

    def _follow(self, *, whole: bool) -> bool:
        """Bring our flows in line with a switch that has started again (``whole``), or with ports that have changed."""
        with self._lock, uncollected():
            layout = self._layout
            if layout is None:
                return True  # the agent is about to say what it wants
            self._stale = self._stale or whole
            self._metered = self._metered and not whole
            try:
                self._catch_up(layout, self._bridge())
            except ApplyError:
                return False
        return True

    def _catch_up(self, layout: Layout, bridge: Bridge) -> None:
        """Bring the flows in line with the ports as they are now.

        :raises ApplyError: the switch or ovsdb-server is away; the next attempt compares with what the switch has
        """
        layout.move(bridge.ports)
        changes = layout.book.take_changes()
        if self._stale:
            changes = difference(self._read(), layout.book.flows)
        self._stale = True
        self._run(changes)
        self._stale = False


def _apply_error(error: SwitchError | NotUnderstood) -> ApplyError:
    return ApplyError(str(error), backend=_NAME, retryable=isinstance(error, SwitchError) and error.transient)
