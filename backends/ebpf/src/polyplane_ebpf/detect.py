"""What this machine can do: nothing is changed, and whatever is made for a question is gone afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from polyplane.errors import BackendUnavailable
from polyplane_ebpf import btf, bytecode, syscall
from polyplane_ebpf.maps import KFUNCS, OFFSETS, MapType
from polyplane_ebpf.options import EbpfOptions
from polyplane_ebpf.syscall import AttachType, ProgramType, Refused

#: The first Linux whose netfilter puts fragments together for BPF programs.
_SINCE = (6, 6)
#: r0 = 1; exit
_TRIVIAL = bytes.fromhex("b7000000010000009500000000000000")


def missing(options: EbpfOptions) -> tuple[str, ...]:
    """Return what keeps the backend from running here, each with the remedy."""
    if os.geteuid() != 0:
        return ("root with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run as root",)
    gaps = []
    if not _works(lambda: _map(MapType.HASH)):
        return ("maps: the kernel needs CONFIG_BPF_SYSCALL=y, and nothing may forbid bpf(2) (seccomp, lockdown)",)
    gaps += [
        f"{kind.name.lower().replace('_', ' ')} maps: they come with Linux 5.8"
        for kind in (MapType.LRU_HASH, MapType.LPM_TRIE, MapType.RINGBUF)
        if not _works(partial(_map, kind))
    ]
    if not btf.KERNEL.exists():
        gaps.append(f"{btf.KERNEL}: the kernel needs CONFIG_DEBUG_INFO_BTF=y")
    if not _works(_netfilter) or _release() < _SINCE:
        gaps.append(
            f"BPF programs in netfilter that get whole packets: this is Linux {os.uname().release}, they come with Linux "
            f"{_SINCE[0]}.{_SINCE[1]} and CONFIG_NETFILTER_BPF_LINK=y; boot such a kernel, or take backend = 'nftables' "
            "(traffic control alone would decide before service translation, or not at all for a pod and its own node)"
        )
    try:
        bytecode.obtain(options.bytecode, Path(options.state))
    except BackendUnavailable as error:
        gaps.append(str(error))
    return tuple(gaps)


def details(options: EbpfOptions) -> tuple[tuple[str, str], ...]:
    """Return what ``polyplane backends`` shows."""
    if os.geteuid() != 0:
        return (("kernel", os.uname().release),)
    told = [("kernel", os.uname().release)]
    told += [(name, "yes" if _works(question) else "no") for name, question in _questions()]
    told.append(("btf", "yes" if btf.KERNEL.exists() else "no"))
    with contextlib.suppress(BackendUnavailable):
        code = bytecode.obtain(options.bytecode, Path(options.state))
        told.append(("bytecode", f"{code.compiler}, {sum(map(len, code.functions.values())) // 8} instructions"))
    return tuple(told)


def has_tcx() -> bool:
    """Whether programs can be attached to devices by TCX links."""
    return _works(_tcx)


def _questions() -> list[tuple[str, Callable[[], None]]]:
    return [
        ("netfilter link", _netfilter),
        ("tcx", _tcx),
        ("lru", lambda: _map(MapType.LRU_HASH)),
        ("lpm", lambda: _map(MapType.LPM_TRIE)),
        ("ringbuf", lambda: _map(MapType.RINGBUF)),
        ("kernel functions", _functions),
    ]


def _works(question: Callable[[], None]) -> bool:
    try:
        question()
    except (OSError, Refused, BackendUnavailable):
        return False
    return True


def _map(kind: MapType) -> None:
    if kind is MapType.RINGBUF:
        descriptor = syscall.create_map(kind, key=0, value=0, entries=4096, flags=0, name="detect")
    else:
        flags = 1 if kind is MapType.LPM_TRIE else 0
        descriptor = syscall.create_map(kind, key=8, value=8, entries=1, flags=flags, name="detect")
    os.close(descriptor)


def _netfilter() -> None:
    os.close(syscall.load_program(ProgramType.NETFILTER, _TRIVIAL, name="detect", attach=AttachType.NETFILTER))


def _tcx() -> None:
    """Ask for a link to an interface that is not there: kernels that know TCX look for it first."""
    program = syscall.load_program(ProgramType.SCHED_CLS, _TRIVIAL, name="detect")
    try:
        os.close(syscall.link_tcx(program, 0x7FFFFFFF, AttachType.TCX_INGRESS))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    finally:
        os.close(program)


def _functions() -> None:
    if set(btf.read_types(OFFSETS, KFUNCS).functions) != set(KFUNCS):
        raise BackendUnavailable("functions are missing")


def _release() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int("".join(character for character in minor if character.isdigit()) or 0)
