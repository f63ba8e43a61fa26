"""`render`: a delta as text, one line for each entry that is written or removed, in the order in which it is done. Pure."""

from __future__ import annotations

from polyplane.backend_kit.deltas import whole
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY, Program
from polyplane.ir.program import Options as ProgramOptions
from polyplane_ebpf.changes import Changes
from polyplane_ebpf.decode import describe
from polyplane_ebpf.encode import Settings
from polyplane_ebpf.layout import Layout
from polyplane_ebpf.options import EbpfOptions


def render(delta: Delta, options: EbpfOptions) -> str:
    """Return the operations on the maps that lead from the delta's base to its target."""
    layout = Layout.of(whole(delta.base), events=options.events)
    before = layout.settings
    stages = layout.follow(delta)
    lines = [] if layout.settings == before and not _is_first(delta.base) else [_settings(layout.settings)]
    for stage in stages:
        lines += ["--", *_lines(stage)]
    return "".join(f"{line}\n" for line in lines)


def _is_first(base: Program) -> bool:
    return base.same_content(EMPTY) and base.options == ProgramOptions()


def _settings(settings: Settings) -> str:
    established, action = "keep" if settings.keep else "recheck", "reject" if settings.reject else "drop"
    return f"= config established {established} deny-action {action} events {settings.events}"


def _lines(changes: Changes) -> list[str]:
    lines = []
    for name, puts, deletes in changes.steps():
        lines += sorted(f"+ {describe(name, key, value)}" for key, value in puts.items())
        lines += sorted(f"- {describe(name, key)}" for key in deletes)
    return lines
