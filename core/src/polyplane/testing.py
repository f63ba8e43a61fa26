"""`MemoryBackend`: a dataplane made of nothing but the IR, for tests, for trying policies out, and as the definition to compare with.

It applies deltas operation by operation and refuses any that is not safe at every prefix, decides about packets with
`polyplane.ir.evaluate.evaluate`, and counts. With the option ``file`` its "kernel" is a file with the program's canonical
text, which survives the process: what a restart, another program's interference or a teardown do can then be tried without
any privileges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from polyplane.errors import ApplyError, ConfigError, InvalidProgram, TextSyntaxError
from polyplane.hookspecs import Applied, Drift, RuleCount, hookimpl
from polyplane.ir.delta import (
    ChangeMembers,
    Delta,
    Operation,
    PutEndpoint,
    PutNode,
    PutPolicy,
    PutSet,
    RemoveEndpoint,
    RemovePolicy,
    RemoveSet,
)
from polyplane.ir.evaluate import Evaluation, Packet, evaluate
from polyplane.ir.features import ALL_FEATURES, Capabilities
from polyplane.ir.program import EMPTY, AddressSet, Direction, Endpoint, Policy, Program
from polyplane.ir.text import parse_program, print_delta, print_object, print_program
from polyplane.reconcile.diff import diff

NAME: Final = "memory"

_Object = AddressSet | Policy | Endpoint


class MemoryBackend:
    """Holds a program and enforces it on whatever packets `count` is given.

    :ivar program: what is in force; a test may replace it to play an intruder whom the audit must find
    :ivar deltas: number of deltas applied since construction
    """

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options of ``[backend.memory]``; the only one is ``file``.

        :raises ConfigError: for any other
        """
        given = dict(options or {})
        file = given.pop("file", None)
        if given or not isinstance(file, str | None):
            raise ConfigError(f"backend.memory: unknown option {next(iter(given), 'file')!r}; there is only file, a path")
        self._file = None if file is None else Path(file)
        self.program = EMPTY
        self.deltas = 0
        self._packets: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()

    @hookimpl
    def polyplane_capabilities(self) -> Capabilities:
        """Everything, always."""
        return ALL_FEATURES

    @hookimpl
    def polyplane_render(self, delta: Delta) -> str:
        """Return the delta's canonical text."""
        return print_delta(delta)

    @hookimpl
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Apply operation by operation; what is held already when ``delta.base`` is something else is not touched again."""
        held = self._held()
        operations = delta.operations if delta.base.same_content(held) else diff(held, delta.target).operations
        try:
            result = apply_operations(held, operations)
        except InvalidProgram as error:
            raise ApplyError(f"unsafe delta: {error}", backend=NAME, retryable=False) from error
        if not result.same_content(delta.target):
            raise ApplyError("the delta's operations do not lead to its target", backend=NAME, retryable=False)
        if operations:
            self._hold(delta.target)
        self.deltas += 1
        detail = Counter(type(operation).__name__ for operation in operations)
        return Applied(operations=len(operations), detail=dict(detail))

    @hookimpl
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Compare what is held with the program, object by object."""
        held = self._held()
        drifts = []
        if (held.options, held.node_addresses) != (program.options, program.node_addresses):
            drifts.append(Drift(subject="node", expected=_node_text(program), found=_node_text(held)))
        drifts += _drifts("set", program.sets, held.sets)
        drifts += _drifts("policy", program.policies, held.policies)
        drifts += _drifts("endpoint", program.endpoints, held.endpoints)
        return drifts

    @hookimpl
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Return what `count` has counted for the rules in force."""
        return [
            RuleCount(rule_id=rule, packets=self._packets[rule], bytes=self._bytes[rule])
            for rule in sorted({one.id for one in self._held().deciders()})
        ]

    @hookimpl
    def polyplane_show(self) -> str:
        """Return the canonical text of what is held."""
        return print_program(self._held())

    @hookimpl
    def polyplane_teardown(self) -> Applied:
        """Forget the program, and the file with it."""
        operations = len(diff(self._held(), EMPTY).operations)
        self._hold(EMPTY)
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        return Applied(operations=operations)

    def count(self, packet: Packet, size: int = 64) -> Evaluation:
        """Let a packet of ``size`` bytes pass or not, and count it at every rule that decided or logged it."""
        evaluation = evaluate(self._held(), packet)
        for decision in (evaluation.egress, evaluation.ingress):
            if decision is not None:
                for rule_id in {decision.rule_id, *decision.logged} - {0}:
                    self._packets[rule_id] += 1
                    self._bytes[rule_id] += size
        return evaluation

    def _held(self) -> Program:
        if self._file is None:
            return self.program
        try:
            self.program = parse_program(self._file.read_text(encoding="ascii"))
        except FileNotFoundError:
            self.program = EMPTY
        except (TextSyntaxError, UnicodeDecodeError):
            # Somebody scribbled over our "kernel": nothing in it can be trusted, so all of it is written anew.
            self.program = EMPTY
        except OSError as error:
            raise ApplyError(f"{self._file}: {error.strerror}", backend=NAME, retryable=True) from error
        return self.program

    def _hold(self, program: Program) -> None:
        if self._file is not None:
            draft = self._file.with_name(f".{self._file.name}.new")
            try:
                draft.write_text(print_program(program), encoding="ascii")
                draft.replace(self._file)
            except OSError as error:
                raise ApplyError(f"{self._file}: {error.strerror}", backend=NAME, retryable=True) from error
        self.program = program
        in_force = {one.id for one in program.deciders()}
        for counter in (self._packets, self._bytes):
            for gone in counter.keys() - in_force:
                del counter[gone]


def apply_operations(base: Program, operations: Iterable[Operation]) -> Program:
    """Return ``base`` after the operations, which must leave no dangling name after any of them.

    :raises polyplane.errors.InvalidProgram: at the first operation that does, or that puts what is there or removes what is not
    """
    sets, policies, endpoints = dict(base.sets), dict(base.policies), dict(base.endpoints)
    node_addresses, options = base.node_addresses, base.options
    for operation in operations:
        match operation:
            case PutNode():
                node_addresses, options = operation.node_addresses, operation.options
            case PutSet(set=value):
                _require(value.id not in sets, operation, "the set is there already")
                sets[value.id] = value
            case ChangeMembers():
                _require(operation.id in sets, operation, "the set is not there")
                members = sets[operation.id].members
                _require(all(member not in members for member in operation.added), operation, "an added member is there already")
                _require(all(member in members for member in operation.removed), operation, "a removed member is not there")
                sets[operation.id] = replace(sets[operation.id], members=members.changed(added=operation.added, removed=operation.removed))
            case PutPolicy(policy=policy):
                _require(policy.id not in policies, operation, "the policy is there already")
                _require(policy.sets <= sets.keys(), operation, "it names a set that is not there")
                policies[policy.id] = policy
            case PutEndpoint(endpoint=endpoint):
                for direction in Direction:
                    named = [policies.get(policy_id) for tier in endpoint.stack(direction) for policy_id in tier.policies]
                    known = all(policy is not None and policy.direction is direction for policy in named)
                    _require(known, operation, f"it names an {direction} policy that is not there")
                endpoints[endpoint.id] = endpoint
            case RemoveEndpoint():
                _require(operation.id in endpoints, operation, "the endpoint is not there")
                del endpoints[operation.id]
            case RemovePolicy():
                _require(operation.id in policies, operation, "the policy is not there")
                stacks = (tier for endpoint in endpoints.values() for way in Direction for tier in endpoint.stack(way))
                _require(all(operation.id not in tier.policies for tier in stacks), operation, "an endpoint still uses the policy")
                del policies[operation.id]
            case RemoveSet():
                _require(operation.id in sets, operation, "the set is not there")
                _require(all(operation.id not in policy.sets for policy in policies.values()), operation, "a policy still uses the set")
                del sets[operation.id]
    return Program(sets=sets, policies=policies, endpoints=endpoints, node_addresses=node_addresses, options=options)


def _require(condition: bool, operation: Operation, problem: str) -> None:  # noqa: FBT001  # reads as an assertion
    if not condition:
        raise InvalidProgram(f"{type(operation).__name__}: {problem}: {operation}")


def _node_text(program: Program) -> str:
    addresses = " ".join(str(address) for address in sorted(program.node_addresses))
    return f"{addresses} established={program.options.established} deny-action={program.options.deny_action}".strip()


def _drifts(kind: str, wanted: Mapping[Any, _Object], found: Mapping[Any, _Object]) -> Iterator[Drift]:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            expected, actual = (_line(table.get(name)) for table in (wanted, found))
            yield Drift(subject=f"{kind} {name}", expected=expected, found=actual)


def _line(value: _Object | None) -> str:
    return "nothing" if value is None else "; ".join(line.strip() for line in print_object(value).splitlines())
