"""The program in the kernel against `evaluate`: random policies, random packets, and packets that are none."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from backend_programs import with_content_ids
from ebpf_bench import Bench
from ebpf_packets import some_packets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ir_programs import programs

from polyplane.ir.evaluate import Verdict, evaluate
from polyplane.ir.program import Program

pytestmark = pytest.mark.needs("root")

EXAMPLES = int(os.environ.get("POLYPLANE_EBPF_EXAMPLES", "25"))
PACKETS = 40


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs(), seed=st.integers(0, 2**32))
def test_agrees_with_the_oracle(bench: Bench, program: Program, seed: int) -> None:
    program = with_content_ids(program)
    bench.bring(program)
    for packet in some_packets(random.Random(seed), PACKETS):  # noqa: S311  # to be repeated, not to be secret
        assert bench.passes(packet) == (evaluate(program, packet).verdict is Verdict.ALLOW), packet
