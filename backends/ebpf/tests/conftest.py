from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from ebpf_node import backend

from polyplane_conformance.sandbox.namespaces import new_prefix


@pytest.fixture
def node() -> Iterator[str]:
    name = f"{new_prefix()}ebpf"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for link in ("veth-c", "veth-s"):
            subprocess.run(["ip", "-n", name, "link", "add", link, "type", "veth", "peer", "name", f"{link}-in"], check=True)
        yield name
    finally:
        backend(name).polyplane_teardown()
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Have what the test does done by one processor: programs that are tried run where they are called."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)
