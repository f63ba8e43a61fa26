from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from ebpf_node import backend

from polyplane_conformance.sandbox.lone import lone_node
from polyplane_conformance.sandbox.namespaces import ip_batch


@pytest.fixture
def node() -> Iterator[str]:
    with lone_node("ebpf") as made:
        ip_batch(made.name, [f"link add {link} type veth peer name {link}-in" for link in ("veth-c", "veth-s")])
        try:
            yield made.name
        finally:
            backend(made.name).polyplane_teardown()


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Have what the test does done by one processor: programs that are tried run where they are called."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)
