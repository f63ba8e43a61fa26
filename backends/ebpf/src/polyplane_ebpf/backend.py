"""`EbpfBackend`: the hooks. What is wanted comes from `Layout`, what is there from `Kernel`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from polyplane.backend_kit.deltas import whole
from polyplane.errors import ApplyError, BackendUnavailable
from polyplane.hookspecs import Applied, Drift, Fill, PacketEvent, RuleCount, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature
from polyplane.ir.program import EMPTY, Program
from polyplane.ir.text import print_program
from polyplane_ebpf import detect, namespace
from polyplane_ebpf.answers import Answers
from polyplane_ebpf.changes import Changes, difference
from polyplane_ebpf.decode import describe
from polyplane_ebpf.encode import EndpointValue
from polyplane_ebpf.events import Events
from polyplane_ebpf.instance import NAME
from polyplane_ebpf.kernel import Kernel
from polyplane_ebpf.layout import Layout
from polyplane_ebpf.maps import DEFINED, SPECS
from polyplane_ebpf.options import EbpfOptions
from polyplane_ebpf.readback import program_of
from polyplane_ebpf.render import render

_Content = dict[str, dict[bytes, bytes]]
#: Events that are taken at a time at most; the ring buffer keeps the rest.
_EVENTS: Final = 1000


class EbpfBackend:
    """Enforces programs through BPF programs in netfilter's hooks; see README.md for how the IR maps to it."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self._options: Final = EbpfOptions.parse(options or {})
        self._kernel: Final = Kernel(self._options)
        self._answers: Final = Answers(self._kernel, self._options.attach)
        #: What is in force; None when we do not know.
        self._layout: Layout | None = None
        #: Our entries of the map ``interfaces``, with numbers for names.
        self._interfaces: dict[bytes, bytes] = {}

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Say whether BPF programs can be used here as we do."""
        return Capabilities(supported=frozenset(Feature), missing=detect.missing(self._options), details=detect.details(self._options))

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Return the operations on the maps from base to target."""
        return render(delta, self._options)

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Bring the target into force: new rows, then addresses, then endpoints one by one, then old rows go.

        A delta that starts from what we hold is followed. Anything else, the first call and a repair above all, is compared with
        what is in the kernel.
        """
        layout, self._layout = self._layout, None
        try:
            if (
                layout is not None
                and not delta.base.same_content(EMPTY)
                and layout.program.same_content(delta.base)
                and self._kernel.open()
            ):
                result = self._apply_stages(layout, layout.follow(delta))
            else:
                layout, result = self._apply_whole(delta.target)
        except OSError as error:
            raise ApplyError(str(error), backend=NAME, retryable=True) from error
        self._layout = layout
        return result

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare our maps and links with what the program asks for."""
        if not self._kernel.open():
            return (Drift(subject=str(self._kernel.place.directory), expected="maps of this version", found="none, or others"),)
        drifts = []
        found = self._kernel.read()
        layout = self._layout
        if layout is None or not layout.program.same_content(program):
            layout = Layout.of(whole(program), events=self._options.events, view=_view_of(found))
        generation, settings = self._kernel.config()
        if settings != layout.settings or generation & 1:
            drifts.append(Drift(subject="config", expected=str(layout.settings), found=str(settings)))
        wanted = self._native(layout)
        for name in DEFINED:
            drifts += _drifts(name, wanted[name], found[name])
        drifts += [Drift(subject=name, expected="attached", found="missing") for name in self._kernel.missing_links(probe=True)]
        missing = self._answers.missing(wanted=layout.settings.reject)
        drifts += [Drift(subject=f"answers on {name}", expected="attached", found="missing") for name in missing]
        drifts += [Drift(subject=str(path), expected="nothing", found="pinned") for path in self._kernel.surplus()]
        return drifts

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Read the counters, which all processors keep for themselves."""
        if not self._kernel.open():
            return ()
        counters = self._kernel.counters()
        return tuple(RuleCount(rule_id=rule, packets=counters[rule][0], bytes=counters[rule][1]) for rule in sorted(counters))

    @hookimpl
    def polyplane_show(self) -> str:
        """Return the maps as the text of a program that decides as they do."""
        if not self._kernel.open(any_size=True):
            raise BackendUnavailable(
                f"nothing of this version is pinned in {self._kernel.place.directory}; start the agent, or name its netns"
            )
        names = {number: name for name, number in namespace.interfaces(self._options.netns).items()}
        return print_program(program_of(self._kernel.read(), self._kernel.config()[1], names))

    @hookimpl
    def polyplane_fill(self) -> Sequence[Fill]:
        """Count entries: ours from memory, those the program makes from the kernel."""
        if self._layout is None or not self._kernel.open():
            return ()
        used = {name: len(entries) for name, entries in self._layout.content.items()} | self._kernel.counts()
        return tuple(
            Fill(name=name, used=count, capacity=self._kernel.entries(name), remedy=f"raise [backend.ebpf] {SPECS[name].option}")
            for name, count in used.items()
        )

    @hookimpl
    def polyplane_events(self) -> Sequence[PacketEvent]:
        """Take what is in the ring buffer."""
        if not self._kernel.open():
            return ()
        with Events(self._kernel.descriptor("events"), SPECS["events"].entries) as events:
            return tuple(event.told() for event in islice(events.pending(), _EVENTS))

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Remove our pins, and with them links, programs and maps; those of other layouts, too."""
        self._layout = None
        self._answers.remove()
        removed = self._kernel.remove()
        abandoned = self._kernel.sweep()
        return Applied(operations=removed + abandoned, detail={"pins": removed, "abandoned pins": abandoned})

    # --- ways to apply ---

    def _apply_whole(self, program: Program) -> tuple[Layout, Applied]:
        """Compare what should be with what is, and change what differs."""
        self._kernel.sweep()
        found: _Content
        if self._kernel.open():
            found = self._kernel.read()
        else:
            self._kernel.create()
            self._kernel.inherit()
            found = {name: {} for name in DEFINED}
        view = _view_of(found)
        layout = Layout.of(whole(program), events=self._options.events, view=view)
        self._interfaces = found["interfaces"]
        changes = difference(found, self._native(layout))
        if _addresses_change(changes) and _stacks_change(changes, found):
            # Old stacks would be asked about classes that were not made for them. So all addresses are written a second time, and
            # each endpoint goes over to them together with its stack.
            layout = Layout.of(whole(program), events=self._options.events, view=1 - view)
            changes = difference(found, self._native(layout))
        result = self._apply_stages(layout, (changes,), found)
        self._kernel.keep_counters(frozenset(one.id for one in program.deciders()))
        return layout, result

    def _apply_stages(
        self, layout: Layout, stages: tuple[Changes, ...], found: Mapping[str, Mapping[bytes, bytes]] | None = None
    ) -> Applied:
        self._check_room(layout, found)
        stages = stages or (Changes(),)
        for stage in stages:  # interfaces may come and go by themselves: they are compared each time
            stage.puts.pop("interfaces", None)
            stage.deletes.pop("interfaces", None)
        interfaces = self._numbered(layout)
        for key, value in interfaces.items():
            if self._interfaces.get(key) != value:
                stages[0].put("interfaces", key, value)
        for key in self._interfaces.keys() - interfaces.keys():
            stages[0].delete("interfaces", key)
        detail: Counter[str] = Counter()
        for stage in stages:
            for name, puts, deletes in stage.steps():
                detail[name] += len(puts or deletes)
        generation, settings = self._kernel.config()
        detail["config"] = int(settings != layout.settings)
        if +detail or generation & 1:
            with self._kernel.changing(layout.settings):
                for stage in stages:
                    self._kernel.write(stage)
        self._interfaces = interfaces
        probe = found is not None
        detail["links"] = self._kernel.attach(probe=probe)
        detail["answers"] = self._answers.ensure(wanted=layout.settings.reject, probe=probe)
        return Applied(operations=detail.total(), detail=dict(+detail))

    def _native(self, layout: Layout) -> _Content:
        return {**layout.content, "interfaces": self._numbered(layout)}

    def _numbered(self, layout: Layout) -> dict[bytes, bytes]:
        """Return the entries about interfaces by number; one that is not there (yet) is left out: its pod is known by address."""
        numbers = namespace.interfaces(self._options.netns)
        entries = {}
        for name, value in layout.content["interfaces"].items():
            number = numbers.get(name.decode())
            if number is not None:
                entries[number.to_bytes(4, sys.byteorder)] = value
        return entries

    def _check_room(self, layout: Layout, found: Mapping[str, Mapping[bytes, bytes]] | None) -> None:
        """Refuse before anything is written what would not fit. Old and new are there together for a moment."""
        for name in DEFINED:
            room = self._kernel.entries(name)
            old = len(found[name]) if found is not None else 0
            need = len(layout.content[name])
            if max(need, old) > room or (
                name in {"hosts", "prefixes"} and found is not None and layout.view != _view_of(found) and need + old > room
            ):
                raise ApplyError(
                    f"map {name} has room for {room} entries and {need} are needed; raise [backend.ebpf] {SPECS[name].option}",
                    backend=NAME,
                    retryable=False,
                )


def _view_of(found: Mapping[str, Mapping[bytes, bytes]]) -> int:
    """Return which copy of the addresses the endpoints use."""
    for name in ("owners", "interfaces"):
        for value in found[name].values():
            return EndpointValue.unpack(value).view
    return 0


def _addresses_change(changes: Changes) -> bool:
    return any(changes.puts.get(name) or changes.deletes.get(name) for name in ("hosts", "prefixes"))


def _stacks_change(changes: Changes, found: Mapping[str, Mapping[bytes, bytes]]) -> bool:
    return any(key in found["owners"] for key in changes.puts.get("owners", {}))


def _drifts(name: str, wanted: Mapping[bytes, bytes], found: Mapping[bytes, bytes]) -> list[Drift]:
    drifts = []
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            shown = key if name != "interfaces" else b"#" + key
            expected, actual = (describe(name, shown, side[key]) if key in side else "nothing" for side in (wanted, found))
            drifts.append(Drift(subject=describe(name, shown), expected=expected, found=actual))
    return drifts
