"""What a machine can do and what it lacks, and what options there are."""

from __future__ import annotations

import errno
import os
import signal
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ebpf_bench import Bench, frame_of
from ebpf_cases import CLIENT, SERVER, WEB, made
from ebpf_node import REJECT

from polyplane.errors import BackendUnavailable, ConfigError
from polyplane.ir.evaluate import Packet
from polyplane_ebpf import detect, syscall
from polyplane_ebpf.backend import EbpfBackend
from polyplane_ebpf.btf import read_types
from polyplane_ebpf.kernel import explain
from polyplane_ebpf.maps import NOWHERE
from polyplane_ebpf.options import EbpfOptions
from polyplane_ebpf.syscall import AttachType, ProgramType, Refused, program_calls

pytestmark = pytest.mark.needs("root")


def test_options_are_checked() -> None:
    for options, said in (
        ({"netns": "x"}, "absolute path"),
        ({"atach": "tcx"}, "did you mean attach"),
        ({"attach": "xdp"}, "none of auto, tcx, clsact"),
        ({"max_rows": 0}, "not a number from 1"),
        ({"priority": 100}, "from -99 to 99"),
        ({"instance": "../x"}, "no usable name"),
    ):
        with pytest.raises(ConfigError, match=said):
            EbpfBackend(options)


def test_this_machine_says_what_it_can_do() -> None:
    assert detect.missing(EbpfOptions()) == ()
    told = dict(detect.details(EbpfOptions()))
    assert {told[name] for name in ("netfilter link", "tcx", "lru", "lpm", "ringbuf", "btf")} == {"yes"}
    assert set(told) >= {"kernel", "bytecode"}


def test_an_older_kernel_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        release = "6.1.0-30-amd64"

    monkeypatch.setattr(os, "uname", Old)
    (gap,) = detect.missing(EbpfOptions())
    for said in ("this is Linux 6.1.0-30-amd64", "Linux 6.6 and CONFIG_NETFILTER_BPF_LINK=y", "backend = 'nftables'"):
        assert said in gap


def test_the_verifiers_log_becomes_one_sentence() -> None:
    with pytest.raises(Refused) as refused:
        syscall.load_program(ProgramType.SCHED_CLS, bytes.fromhex("9500000000000000"), name="bad")
    sentence = explain("bad", refused.value)
    assert "R0 !read_ok" in sentence
    assert "\n" not in sentence


def test_signals_do_not_keep_a_program_from_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals that come faster than the verifier is done: it goes on once they stop."""
    counting_to_200_000 = "b700000000000000 b701000000000000 0701000001000000 a501feff400d0300 9500000000000000"
    real, interrupted = program_calls.bpf, []

    def counted(*arguments: Any) -> int:
        try:
            return real(*arguments)
        except OSError as error:
            interrupted.append(error.errno)
            raise

    def disturb(thread: int) -> None:
        for _ in range(500):
            signal.pthread_kill(thread, signal.SIGUSR1)
            time.sleep(0.001)

    monkeypatch.setattr(program_calls, "bpf", counted)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    disturber = threading.Thread(target=disturb, args=(threading.get_ident(),))
    try:
        disturber.start()
        os.close(syscall.load_program(ProgramType.SCHED_CLS, bytes.fromhex(counting_to_200_000), name="slow"))
    finally:
        disturber.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(interrupted) > 5
    assert set(interrupted) == {errno.EAGAIN}


def test_a_kernel_in_lockdown_gets_a_program_that_does_not_read_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a kernel refuses the helper; without the places it would be used for, the verifier never gets to it."""
    real, tried = syscall.load_program, []

    def strict(kind: ProgramType, code: bytes, *, name: str, attach: AttachType = AttachType.NONE) -> int:
        if name == "polyplane_filter":
            tried.append(code.count(struct.pack("=i", NOWHERE)))
            if len(tried) == 1:
                raise Refused(22, "unknown func bpf_probe_read_kernel#113")
        return real(kind, code, name=name, attach=attach)

    monkeypatch.setattr(syscall, "load_program", strict)
    with Bench() as bench:
        bench.bring(made(WEB, options=REJECT))
        packet = Packet(source=CLIENT, destination=SERVER, protocol=6, source_port=1, port=80)
        assert bench.ask(frame_of(packet))
        assert not bench.ask(frame_of(replace(packet, port=81)))
    assert tried[1] > tried[0]


def btf(types: bytes, strings: bytes) -> bytes:
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_types_of_a_module_are_found_beside_the_kernels(tmp_path: Path) -> None:
    """Of a module whose structure has a name of its own and a field that is named in the kernel's strings."""
    strings, own = b"\0sk_buff\0len\0tuplehash\0", b"\0nf_conn\0"

    def structure(name: int, field: int, offset: int) -> bytes:
        return struct.pack("=III", name, 4 << 24 | 1, 64) + struct.pack("=III", field, 0, offset * 8)

    (tmp_path / "vmlinux").write_bytes(btf(structure(1, 9, 112), strings))
    fields = (("sk_buff", "len"), ("nf_conn", "tuplehash"))
    assert read_types(fields, (), tmp_path / "vmlinux").offsets == {("sk_buff", "len"): 112}
    read_types.cache_clear()
    (tmp_path / "nf_conntrack").write_bytes(btf(structure(len(strings) + 1, 13, 24), own))
    assert read_types(fields, (), tmp_path / "vmlinux").offsets == {("sk_buff", "len"): 112, ("nf_conn", "tuplehash"): 24}


def test_without_types_of_the_kernel_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="CONFIG_DEBUG_INFO_BTF"):
        read_types((), (), tmp_path / "none")
    (tmp_path / "bad").write_bytes(bytes(64))
    with pytest.raises(BackendUnavailable, match="not in BTF format"):
        read_types((), (), tmp_path / "bad")
