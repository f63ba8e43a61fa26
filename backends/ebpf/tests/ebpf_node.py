"""A namespace with two pods' interfaces, and the backend in it: what tests of the kernel's objects share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from ebpf_cases import SMALL

from polyplane.ir.program import DenyAction, EndpointId, Options, Program
from polyplane_ebpf.backend import EbpfBackend

PINS: Final = Path("/sys/fs/bpf/polyplane")
REJECT: Final = Options(deny_action=DenyAction.REJECT)


def backend(node: str, **options: object) -> EbpfBackend:
    return EbpfBackend({**SMALL, "netns": f"/run/netns/{node}", **options})


def wired(program: Program) -> Program:
    names = {EndpointId("x/client"): "veth-c", EndpointId("x/server"): "veth-s"}
    return replace(program, endpoints={name: replace(one, interface=names[name]) for name, one in program.endpoints.items()})


def directory(node: str) -> Path:
    (found,) = PINS.glob(f"v*/ns-{Path('/run/netns', node).stat().st_ino}")
    return found
