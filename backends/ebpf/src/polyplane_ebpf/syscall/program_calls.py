"""Programs: loading, trying, attaching by link."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from polyplane_ebpf.syscall.call import Command, address, attributes, bpf, bpf_buffer, buffer, packed_name


class ProgramType(IntEnum):
    """``enum bpf_prog_type``."""

    SCHED_CLS = 3
    NETFILTER = 32


class AttachType(IntEnum):
    """``enum bpf_attach_type``."""

    NONE = 0
    NETFILTER = 45
    TCX_INGRESS = 46
    TCX_EGRESS = 47


#: Seconds for which a program is tried again that a signal kept from being verified (EAGAIN). By time and not five times, as libbpf
#: does: where the processor is short a verification may take longer than it is from one signal to the next.
_INTERRUPTED: Final = 30.0


class Refused(Exception):  # an error is named after what happened
    """The verifier does not accept a program; ``log`` is what it says."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(os.strerror(number))
        self.number = number
        self.log = log


def load_program(kind: ProgramType, code: bytes, *, name: str, attach: AttachType = AttachType.NONE) -> int:
    """Load bytecode; return its descriptor.

    :raises Refused: the verifier does not accept it
    """
    instructions, license_, log = buffer(code), buffer(b"GPL\0"), buffer(b"")

    def load(level: int, log: ctypes.Array[ctypes.c_char]) -> int:
        deadline = time.monotonic() + _INTERRUPTED
        while True:
            try:
                return once(level, log)
            except OSError as error:
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise

    def once(level: int, log: ctypes.Array[ctypes.c_char]) -> int:
        return bpf(
            Command.PROG_LOAD,
            "IIQQIIQII16sII",
            kind,
            len(code) // 8,
            address(instructions),
            address(license_),
            level,
            len(log) if level else 0,
            address(log) if level else 0,
            0,
            0,
            packed_name(name),
            0,
            attach,
        )

    try:
        return load(0, log)
    except OSError as refusal:
        if refusal.errno not in {errno.EACCES, errno.EINVAL, errno.E2BIG}:
            raise
        log = buffer(bytes(1 << 20))
        try:
            return load(1, log)
        except OSError as error:
            raise Refused(error.errno or 0, log.value.decode("utf-8", "replace")) from refusal


@dataclass(frozen=True, slots=True)
class Run:
    """What a test run gave: the program's return value, its duration in nanoseconds (mean), the packet afterwards."""

    value: int
    nanoseconds: int
    packet: bytes


def try_program(descriptor: int, packet: bytes, *, context: bytes = b"", repeat: int = 1) -> Run:
    """Run a loaded program on a packet that begins with its Ethernet header."""
    data, out = buffer(packet), buffer(bytes(len(packet) + 256))
    context_buffer = buffer(context)
    packed = attributes(
        "IIIIQQIIIIQQ",
        descriptor,
        0,
        len(packet),
        len(out),
        address(data),
        address(out),
        repeat,
        0,
        len(context),
        0,
        address(context_buffer) if context else 0,
        0,
    )
    bpf_buffer(Command.PROG_TEST_RUN, packed)
    value, size = struct.unpack_from("=I", packed, 4)[0], struct.unpack_from("=I", packed, 12)[0]
    return Run(value, struct.unpack_from("=I", packed, 36)[0], out.raw[:size])


def link_netfilter(program: int, *, family: int, hook: int, priority: int, defragment: bool) -> int:
    """Attach to a hook of netfilter of the calling thread's namespace; ``family`` 4 or 6. Return the link's descriptor."""
    protocol = 2 if family == 4 else 10
    return bpf(Command.LINK_CREATE, "IIIIIIiI", program, 0, AttachType.NETFILTER, 0, protocol, hook, priority, int(defragment))


def link_tcx(program: int, ifindex: int, attach: AttachType, *, first: bool = False) -> int:
    """Attach to an interface of the calling thread's namespace, ``first``: before all others; return the link's descriptor."""
    before = 1 << 3
    return bpf(Command.LINK_CREATE, "IIII", program, ifindex, attach, before if first else 0)


def detach_link(link: int) -> None:
    """Detach by force; the link stays, with nothing at its end."""
    bpf(Command.LINK_DETACH, "I", link)
