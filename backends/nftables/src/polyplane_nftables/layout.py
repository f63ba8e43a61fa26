"""`Layout`: a program as one nftables table, followed delta by delta.

Two base chains (forwarded packets, and packets from pods to the node itself) let through what always passes, then ask
egress, then ingress. The output hook decides nothing: what the node itself sends to its pods is always allowed, and a packet
to a service address would still show the interface it had before translation there. It only keeps a process of the node from
picking up a connection in the middle that a pod with egress policy had opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polyplane.backend_kit.attachments import Attachments
from polyplane.backend_kit.deltas import whole
from polyplane.backend_kit.labels import Labels
from polyplane.ir.cidr import BITS
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY, Direction, Established, Options, Program
from polyplane_nftables.decisions import Decisions, Style
from polyplane_nftables.native import Chain, Changes, Native, Rule
from polyplane_nftables.owned import FORWARD, INPUT, KEYWORD, MARKER, OUTPUT, Names
from polyplane_nftables.side import Side

#: TCP packets that open no connection although connection tracking sees the connection for the first time.
_MID_STREAM: Final = ("tcp flags != syn / fin,syn,rst,ack ct state new", "tcp flags != 0x2 / 0x1,0x2,0x4,0x10 ct state 0x8")


class Layout:
    """The native state of one table for a program; `follow` brings it to the next program."""

    def __init__(self, *, log_group: int | None = None, priority: int = 0) -> None:
        self.program: Program = EMPTY
        self.native: Final = Native()
        self._priority: Final = priority
        self._log_group: Final = log_group
        self._labels: Final = Labels()
        self._attachments: Final = Attachments()
        self._options: Options | None = None
        self._sides: tuple[Side, ...] = ()

    @classmethod
    def of(cls, program: Program, *, log_group: int | None = None, priority: int = 0) -> Layout:
        """Return the layout of a whole program."""
        layout = cls(log_group=log_group, priority=priority)
        layout.follow(whole(program))
        layout.native.take_changes()
        return layout

    def can_follow(self, delta: Delta) -> bool:
        """Whether `follow` may be called: the delta starts where we are and leaves the operator's options alone."""
        held = self._options is not None and (delta.base is self.program or delta.base.same_content(self.program))
        return held and delta.target.options == self._options

    def follow(self, delta: Delta) -> Changes:
        """Go from the delta's base, which must be what we hold, to its target; return what changed."""
        if self._options is None:
            self._options = delta.target.options
            style = Style(deny_action=self._options.deny_action, label=self._labels.of, log_group=self._log_group)
            self._decisions = Decisions(self.native, style)
            self._sides = tuple(Side(direction, self.native, self._decisions) for direction in (Direction.EGRESS, Direction.INGRESS))
        self.program = delta.target
        self._labels.update(delta)
        moved = self._attachments.update(delta)
        for side in self._sides:
            side.update(delta, self._attachments, moved)
        self._decisions.tidy()
        self._write_base(self._options)
        return self.native.take_changes()

    def _write_base(self, options: Options) -> None:
        egress, ingress = self._sides
        jumps = [Rule(f"jump {side.names.entry}") for side in self._sides]
        towards = tuple(self._mid_stream(egress.names, "oifname", "daddr"))
        guards = (*self._mid_stream(ingress.names, "iifname", "saddr"), *towards)
        self.native.set_chain(MARKER, Chain())
        self.native.set_chain(FORWARD, Chain((*_passing(options), *jumps, *guards), self._hook("forward")))
        self.native.set_chain(INPUT, Chain((*_passing(options), jumps[0]), self._hook("input")))
        self.native.set_chain(OUTPUT, Chain(towards, self._hook("output")) if towards else None)

    def _hook(self, hook: str) -> str:
        return f"type filter hook {hook} priority {self._priority}; policy accept;"

    def _mid_stream(self, names: Names, interface: str, address: str) -> Iterator[Rule]:
        """Refuse to pick up a connection in the middle where that could turn it round.

        After its conntrack entry is deleted, the next packet of a denied connection may come from the server: net.netfilter.
        nf_conntrack_tcp_loose makes an entry in which the server is the originator, and the client's packets are replies.
        So an endpoint with ingress policy cannot start in the middle, and nobody can towards an endpoint with egress policy.
        It stands behind the policy, whose counters and refusals come first, and drops silently: a reset would end
        connections that only lost their entry and whose own originator can still bring them back.
        """
        members = [(names.interfaces, interface)]
        members += [(names.addresses(family), f"{KEYWORD[family]} {address}") for family in BITS]
        for name, key in members:
            if name in self.native.elements:
                text, listed = (f"{guard} {key} @{name} counter drop" for guard in _MID_STREAM)
                yield Rule(text, "mid-stream", listed)


def _passing(options: Options) -> Iterator[Rule]:
    """What passes whatever the policy: neighbour discovery, errors about open connections, and what continues one."""
    yield Rule("icmpv6 type 133-137 accept", "neighbour discovery")
    yield Rule("meta l4proto { 1, 58 } ct state related accept", "errors", "meta l4proto { 1, 58 } ct state 0x4 accept")
    if options.established is Established.KEEP:
        yield Rule("ct state established,related accept", "open connections", "ct state 0x2,0x4 accept")
    else:
        text, listed = "ct direction reply ct state established,related accept", "ct direction 1 ct state 0x2,0x4 accept"
        yield Rule(text, "replies", listed)
