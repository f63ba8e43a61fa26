"""A bench without namespaces: the real programs over real maps, asked about made packets by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import os
import struct
from types import TracebackType
from typing import Self

from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.evaluate import Packet
from polyplane.ir.program import EMPTY, Program
from polyplane.reconcile.diff import diff
from polyplane_ebpf import syscall
from polyplane_ebpf.kernel import Kernel
from polyplane_ebpf.layout import Layout
from polyplane_ebpf.maps import Hook
from polyplane_ebpf.options import EbpfOptions

SYN, ACK, FIN, RST = 2, 16, 1, 4


class Bench:
    """Programs over maps of their own; nothing is pinned, nothing attached."""

    def __init__(self, **options: object) -> None:
        sizes = {"max_rows": 65536, "max_hosts": 65536, "max_prefixes": 65536, "max_connections": 4096}
        self.kernel = Kernel(EbpfOptions.parse({**sizes, **options}))
        self.kernel.create()
        self.programs = self.kernel.load()
        self.layout = Layout(events=1000)
        self.program = EMPTY
        self.write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for descriptor in self.programs.values():
            os.close(descriptor)
        self.kernel.close()

    def bring(self, program: Program) -> None:
        """Bring a program into force as the backend does: what differs, in stages."""
        self.follow(diff(self.program, program))

    def follow(self, delta: Delta) -> int:
        """Follow a delta; return how many entries were written and removed."""
        stages = self.layout.follow(delta)
        self.program = delta.target
        for stage in stages:
            stage.puts.pop("interfaces", None)
            stage.deletes.pop("interfaces", None)
        with self.kernel.changing(self.layout.settings):
            for stage in stages:
                self.kernel.write(stage)
        return sum(len(puts) + len(deletes) for stage in stages for _, puts, deletes in stage.steps())

    def write(self) -> None:
        with self.kernel.changing(self.layout.settings):
            pass

    def forget(self) -> None:
        """Remove all connections."""
        self.kernel.forget("connections")

    def ask(self, frame: bytes, hook: Hook = Hook.FORWARD, function: str = "polyplane_filter") -> bool:
        """Whether the frame passes."""
        family = 4 if frame[12:14] == b"\x08\x00" else 6
        context = struct.pack("=BB", hook, 2 if family == 4 else 10).ljust(48, b"\0")
        return bool(syscall.try_program(self.programs[function], frame, context=context).value)

    def nanoseconds(self, frame: bytes, repeat: int) -> int:
        family = 4 if frame[12:14] == b"\x08\x00" else 6
        context = struct.pack("=BB", Hook.FORWARD, 2 if family == 4 else 10).ljust(48, b"\0")
        return syscall.try_program(self.programs["polyplane_filter"], frame, context=context, repeat=repeat).nanoseconds

    def passes(self, packet: Packet) -> bool:
        """Whether the packet passes, with nothing remembered."""
        self.forget()
        return self.ask(frame_of(packet))


def ethernet(family: int) -> bytes:
    return bytes.fromhex("020000000001020000000002") + (b"\x08\x00" if family == 4 else b"\x86\xdd")


def network(source: Cidr, destination: Cidr, protocol: int, payload: bytes, *, extensions: bytes = b"", first: int | None = None) -> bytes:
    """An IP packet; ``extensions`` are options (IPv4, a multiple of 4 bytes) or extension headers whose first one is ``first``."""
    if source.family == 4:
        words = 5 + len(extensions) // 4
        header = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, words * 4 + len(payload), 1, 0, 64, protocol, 0)
        return header + source.address.to_bytes(4, "big") + destination.address.to_bytes(4, "big") + extensions + payload
    header = struct.pack("!IHBB", 6 << 28, len(extensions) + len(payload), protocol if first is None else first, 64)
    return header + source.address.to_bytes(16, "big") + destination.address.to_bytes(16, "big") + extensions + payload


def transport(packet: Packet, *, flags: int = SYN, identifier: int = 7) -> bytes:
    if packet.protocol == 6:
        return struct.pack("!HHIIBBHHH", packet.source_port, packet.port, 1, 0, 5 << 4, flags, 1024, 0, 0)
    if packet.protocol == 17:
        return struct.pack("!HHHH", packet.source_port, packet.port, 12, 0) + b"data"
    if packet.protocol == 132:
        return struct.pack("!HHII", packet.source_port, packet.port, 0, 0) + struct.pack("!BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1)
    if packet.icmp is not None:
        return struct.pack("!BBHHH", packet.icmp.type, packet.icmp.code or 0, 0, identifier, 1) + bytes(8)
    return bytes(16)


def frame_of(packet: Packet, *, flags: int = SYN, extensions: bytes = b"", first: int | None = None) -> bytes:
    payload = transport(packet, flags=flags)
    body = network(packet.source, packet.destination, packet.protocol, payload, extensions=extensions, first=first)
    return ethernet(packet.source.family) + body
