"""The memory backend is the reference every other is compared with: it must be strict."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from ir_strategies import programs

from polyplane.errors import ApplyError, ConfigError
from polyplane.hookspecs import RuleCount
from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta, Operation, RemovePolicy, RemoveSet
from polyplane.ir.evaluate import Packet, Verdict
from polyplane.ir.program import EMPTY, Program
from polyplane.ir.text import parse_program
from polyplane.plugins import Dataplane
from polyplane.reconcile.diff import diff
from polyplane.testing import MemoryBackend

OPEN = """\
program version=1 revision=1
node 10.1.0.1
set web "web"
  10.1.0.9
policy p ingress
  rule 7 allow protocol=tcp ports=80 peer=web by NetworkPolicy shop/web ingress[0]
endpoint shop/web
  address 10.1.0.4
  ingress tier=np end=deny isolation=8
    policy p
    by NetworkPolicy shop/web ingress
"""


def memory(options: dict[str, object] | None = None) -> tuple[MemoryBackend, Dataplane]:
    backend = MemoryBackend(options or {})
    return backend, Dataplane("memory", backend)


def tcp(source: str, port: int) -> Packet:
    return Packet(source=Cidr.parse(source), destination=Cidr.parse("10.1.0.4"), protocol=6, port=port)


@settings(max_examples=60)
@given(programs(max_endpoints=2), programs(max_endpoints=2))
def test_any_way_between_programs_is_safe_and_counted(first: Program, second: Program) -> None:
    backend, dataplane = memory()
    for base, target in ((EMPTY, first), (first, second), (second, EMPTY)):
        # Ids name content: where two random programs use one id for two policies, there is no such delta.
        if any(base.policies[name] != target.policies[name] for name in base.policies.keys() & target.policies.keys()):
            return
        if any(base.sets[name].label != target.sets[name].label for name in base.sets.keys() & target.sets.keys()):
            return
        delta = diff(base, target)
        assert dataplane.apply(delta).operations == len(delta.operations)
        assert backend.program.same_content(target)
        assert dataplane.audit(target) == []


def test_reapply_from_an_empty_base_touches_nothing() -> None:
    _, dataplane = memory()
    program = parse_program(OPEN)
    assert dataplane.apply(diff(EMPTY, program)).operations == 4
    assert dataplane.apply(diff(EMPTY, program)).operations == 0


def test_drift_is_found_named_and_repaired() -> None:
    backend, dataplane = memory()
    program = parse_program(OPEN)
    dataplane.apply(diff(EMPTY, program))
    backend.program = parse_program(OPEN.replace("10.1.0.9", "0.0.0.0/0").replace("revision=1", "revision=1 deny-action=reject"))
    drifts = dataplane.audit(program)
    assert [drift.subject for drift in drifts] == ["node", "set web"]
    assert (drifts[1].expected, drifts[1].found) == ('set web "web"; 10.1.0.9', 'set web "web"; 0.0.0.0/0')
    assert dataplane.apply(diff(EMPTY, program)).operations == 2
    assert dataplane.audit(program) == []


@pytest.mark.parametrize(
    ("dropped", "problem"),
    [(0, "do not lead to"), (1, "names a set that is not there"), (2, "names an ingress policy that is not there"), (3, "do not lead to")],
)
def test_delta_that_names_what_is_not_there_is_refused(dropped: int, problem: str) -> None:
    backend, dataplane = memory()
    delta = diff(EMPTY, parse_program(OPEN))
    operations = tuple(operation for index, operation in enumerate(delta.operations) if index != dropped)
    with pytest.raises(ApplyError, match=problem) as caught:
        dataplane.apply(Delta(base=EMPTY, target=delta.target, operations=operations))
    assert not caught.value.retryable
    assert backend.program is EMPTY


@pytest.mark.parametrize(
    ("kind", "problem"), [(RemoveSet, "a policy still uses the set"), (RemovePolicy, "an endpoint still uses the policy")]
)
def test_removal_before_its_turn_is_refused(kind: type[Operation], problem: str) -> None:
    _, dataplane = memory()
    program = parse_program(OPEN)
    dataplane.apply(diff(EMPTY, program))
    delta = diff(program, EMPTY)
    operations = tuple(sorted(delta.operations, key=lambda operation: not isinstance(operation, kind)))
    with pytest.raises(ApplyError, match=problem):
        dataplane.apply(Delta(base=program, target=EMPTY, operations=operations))


def test_packets_are_decided_and_counted() -> None:
    backend, dataplane = memory()
    program = parse_program(OPEN)
    dataplane.apply(diff(EMPTY, program))
    assert backend.count(tcp("10.1.0.9", 80), size=100).verdict is Verdict.ALLOW
    assert backend.count(tcp("10.1.0.9", 80), size=50).verdict is Verdict.ALLOW
    assert backend.count(tcp("10.1.0.8", 80)).verdict is Verdict.DENY
    assert dataplane.counters() == [RuleCount(rule_id=7, packets=2, bytes=150), RuleCount(rule_id=8, packets=1, bytes=64)]
    dataplane.apply(diff(program, EMPTY))
    dataplane.apply(diff(EMPTY, program))
    assert [count.packets for count in dataplane.counters()] == [0, 0]


def test_render_is_the_text_of_the_delta() -> None:
    _, dataplane = memory()
    delta = diff(EMPTY, parse_program(OPEN))
    assert dataplane.render(delta).startswith("delta 0 -> 1: 4 operations\n+ node")


def test_file_survives_the_process_and_teardown_removes_it(tmp_path: Path) -> None:
    options: dict[str, object] = {"file": str(tmp_path / "kernel")}
    program = parse_program(OPEN)
    _, dataplane = memory(options)
    dataplane.apply(diff(EMPTY, program))
    _, restarted = memory(options)
    assert restarted.audit(program) == []
    assert restarted.apply(diff(EMPTY, program)).operations == 0
    (tmp_path / "kernel").write_text("scribble\n")
    assert len(restarted.audit(program)) == 4
    assert restarted.apply(diff(EMPTY, program)).operations == 4
    assert restarted.teardown().operations == 4
    assert list(tmp_path.iterdir()) == []
    assert restarted.teardown().operations == 0


def test_unwritable_file_is_worth_a_retry(tmp_path: Path) -> None:
    _, dataplane = memory({"file": str(tmp_path / "missing" / "kernel")})
    with pytest.raises(ApplyError) as caught:
        dataplane.apply(diff(EMPTY, parse_program(OPEN)))
    assert caught.value.retryable


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown option 'tabel'"):
        MemoryBackend({"tabel": "x"})
