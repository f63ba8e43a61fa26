"""`Wire`: both ends of the traffic between two pods, played by one thread, so that it costs what its packets cost and little else.

A veth hands a packet on in the sender's own context: through the node's rules up to the receiver's socket. The thread's CPU time
is therefore the packet's, nobody else on the machine can add to it, and there is no other process to wake up. Where the dataplane
is a process of its own (Open vSwitch's userspace datapath, a queue's reader), that process's CPU time is added.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from polyplane_conformance import netns

#: Where the traffic goes to, UDP and TCP; what a layout must allow.
PORT: Final = 7000
_PAYLOAD: Final = 18
_BATCH: Final = 64
#: Seconds until a packet is given up.
_PATIENCE: Final = 0.05
_CHUNK: Final = bytes(256 * 1024)
_RESET: Final = struct.pack("ii", 1, 0)

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint))


class _Batch:
    """Buffers for ``sendmmsg`` and ``recvmmsg``."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_PAYLOAD)
        self._vector = _IoVec(ctypes.addressof(self._buffer), _PAYLOAD)
        self.messages = (_MMsgHdr * _BATCH)()
        for message in self.messages:
            message.header.iov = ctypes.pointer(self._vector)
            message.header.iovlen = 1


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of traffic took: units (packets, transactions, bytes) that arrived, CPU and wall-clock seconds, and losses."""

    units: int
    cpu: float
    wall: float
    lost: int = 0


@dataclass(slots=True)
class _Took:
    """Seconds, set when they are over."""

    cpu: float = 0.0
    wall: float = 0.0


@dataclass(slots=True)
class Wire:
    """The two ends. Make it with `open`; close it."""

    client: Path
    address: str
    helpers: Callable[[], float]
    _open: ExitStack = field(default_factory=ExitStack)
    _udp: tuple[socket.socket, socket.socket] = field(init=False)
    _tcp: tuple[socket.socket, socket.socket] = field(init=False)
    _listener: socket.socket = field(init=False)
    _out: _Batch = field(default_factory=_Batch)
    _in: _Batch = field(default_factory=_Batch)

    @classmethod
    def open(cls, client: Path, server: Path, address: str, *, helpers: Callable[[], float] = lambda: 0.0) -> Self:
        """Connect two namespaces.

        :param helpers: CPU seconds that other processes have spent on packets so far
        """
        wire = cls(client, address, helpers)
        with netns.inside(server):
            udp_in = wire._open.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            udp_in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            udp_in.bind((address, PORT))
            wire._listener = wire._open.enter_context(socket.create_server((address, PORT), backlog=128))
        with netns.inside(client):
            udp_out = wire._open.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            udp_out.connect((address, PORT))
        wire._listener.settimeout(5)
        wire._udp, wire._tcp = (udp_out, udp_in), wire._connect(wire._open)
        return wire

    def close(self) -> None:
        """Close all sockets."""
        self._open.close()

    # --- kinds of traffic; each runs for some seconds

    def udp(self, seconds: float) -> Round:
        """Datagrams one way; units are those that arrived."""
        out, into = (end.fileno() for end in self._udp)
        sent = arrived = 0
        with self._clock() as took:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sent += max(0, _libc.sendmmsg(out, self._out.messages, _BATCH, 0))
                arrived += self._drain(into, sent - arrived)
        return Round(arrived, took.cpu, took.wall, lost=sent - arrived)

    def _connect(self, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
        """Return both ends of another connection; the stack closes them."""
        with netns.inside(self.client):
            out = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        out.settimeout(5)
        out.connect((self.address, PORT))
        into = stack.enter_context(self._listener.accept()[0])
        into.settimeout(5)
        for end in (out, into):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return out, into

    def _drain(self, into: int, expected: int) -> int:
        """Receive what is there, and wait a moment for what is still on its way."""
        arrived = 0
        while arrived < expected:
            got = _libc.recvmmsg(into, self._in.messages, _BATCH, socket.MSG_DONTWAIT, None)
            if got > 0:
                arrived += got
            elif not select.select([into], [], [], _PATIENCE)[0]:
                break
        return arrived

    def transactions(self, seconds: float) -> Round:
        """One byte there and one back, over one connection (what netperf calls TCP_RR)."""
        out, into = self._tcp
        done = 0
        with self._clock() as took:
            finish = time.monotonic() + seconds
            while time.monotonic() < finish:
                for _ in range(20):
                    _exchange(out, into)
                done += 20
        return Round(done, took.cpu, took.wall)

    def connections(self, seconds: float) -> Round:
        """Connect, one byte there and one back, close (TCP_CRR)."""
        done = 0
        with netns.inside(self.client), self._clock() as took:
            finish = time.monotonic() + seconds
            while time.monotonic() < finish:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as out:
                    out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    out.settimeout(5)
                    out.connect((self.address, PORT))
                    into, _ = self._listener.accept()
                    with into:
                        _exchange(out, into)
                done += 1
        return Round(done, took.cpu, took.wall)

    def stream(self, seconds: float) -> Round:
        """As many bytes as a connection takes (TCP_STREAM).

        Every round has one of its own and lets it reach its speed first: a connection that lost a packet once, in any round
        before, sends in smaller pieces ever after, and each of its bytes costs up to twice as much.
        """
        with ExitStack() as stack:
            ends = self._connect(stack)
            _pour(*ends, seconds / 4)
            with self._clock() as took:
                sent, arrived = _pour(*ends, seconds)
        return Round(arrived, took.cpu, took.wall, lost=sent - arrived)

    @contextmanager
    def _clock(self) -> Iterator[_Took]:
        """Yield what has CPU and wall-clock seconds in it afterwards."""
        took = _Took()
        others, cpu, wall = self.helpers(), time.thread_time(), time.monotonic()
        yield took
        took.cpu, took.wall = time.thread_time() - cpu + self.helpers() - others, time.monotonic() - wall


def _pour(out: socket.socket, into: socket.socket, seconds: float) -> tuple[int, int]:
    """Send as many bytes as a connection takes; return how many were sent, and how many of them arrived."""
    for end in (out, into):
        end.settimeout(0)
    target = bytearray(len(_CHUNK))
    sent = arrived = 0
    finish = time.monotonic() + seconds
    while time.monotonic() < finish or arrived < sent:
        moved = 0
        if time.monotonic() < finish:
            try:
                moved = out.send(_CHUNK)
                sent += moved
            except BlockingIOError:
                pass
        try:
            while got := into.recv_into(target):
                arrived += got
                moved += got
        except BlockingIOError:
            pass
        if not moved and not select.select([into], [], [], 1.0)[0]:
            break
    return sent, arrived


def _exchange(out: socket.socket, into: socket.socket) -> None:
    """One byte there, one byte back."""
    out.send(b"x")
    into.recv(1)
    into.send(b"x")
    out.recv(1)


#: Kinds of traffic and what their units are.
KINDS: Final[dict[str, Callable[[Wire, float], Round]]] = {
    "UDP": Wire.udp,
    "TCP_RR": Wire.transactions,
    "TCP_CRR": Wire.connections,
    "TCP_STREAM": Wire.stream,
}


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that all threads of a process have spent, to the nanosecond."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            spent += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return spent / 1e9


def pid_in(path: Path) -> int:
    """Read a pid file."""
    return int(path.read_text(encoding="ascii").split()[0])
