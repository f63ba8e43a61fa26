"""`Decisions`: stacks of tiers as chains, shared by all endpoints with equal stacks.

A chain decides by ``RETURN`` (allowed: the other direction still decides, then the rules of others) and ``DROP``. It is entered
by ``-g``, so that RETURN leads back to the chain that asked for the direction, however many tiers lie between: no mark is
needed to carry a verdict, and none of the packet's or connection's marks is touched.

Tiers follow one another in one chain; only where a rule passes to the next tier, that one begins a chain of its own (`steps`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from polyplane.ir.program import ANY, Action, DenyAction, Direction, Policy, PolicyId, PortRange, SetId, Stack
from polyplane_iptables.matches import alternatives
from polyplane_iptables.native import Chain
from polyplane_iptables.owned import REJECT, base_of, log_chain, port_set_name, set_name, stack_chain
from polyplane_iptables.steps import Part, StackRefused, Step, parts_of

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.iptables")

#: Limited, because whoever sends the packets must not be able to fill the node's log.
_LOG_LIMIT: Final = "-m limit --limit 10/sec "


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all decisions have in common.

    ``log_group`` None: the kernel log. ``log_denied``: denials log too. ``port_sets``: the kernel has sets of ports.
    """

    deny_action: DenyAction = DenyAction.DROP
    log_group: int | None = None
    log_denied: bool = False
    port_sets: bool = True

    @property
    def deny(self) -> str:
        """Target of a denial."""
        return f"-g {REJECT}" if self.deny_action is DenyAction.REJECT else "-j DROP"

    def log(self, step: Step, direction: Direction) -> str:
        """Target of a rule that logs. The kernel log takes prefixes of 29 characters, nflog of 64: see `polyplane_iptables.nflog`."""
        denied = step.action is Action.DENY
        if self.log_group is None:
            return f'-j LOG --log-prefix "polyplane {"denied " if denied else ""}{step.rule_id:08x} "'
        prefix = f'"polyplane {"deny" if denied else "log"} {direction} {step.rule_id:08x}"'
        return f"-j NFLOG --nflog-prefix {prefix}" + (f" --nflog-group {self.log_group}" if self.log_group else "")


class Naming:
    """Kernel names of sets, and what they were asked for: `polyplane_iptables.matches.Names`."""

    def __init__(self, generations: Mapping[str, int], *, port_sets: bool = True) -> None:
        self._generations: Final = generations
        self._port_sets: Final = port_sets
        self.asked: Final[dict[str, tuple[SetId, int]]] = {}
        self.asked_ports: Final[dict[str, tuple[PortRange, ...]]] = {}

    def addresses(self, set_id: SetId, family: int) -> str:
        """Return the kernel's name of a set's members of one family."""
        name = set_name(set_id, family, self._generations.get(set_name(set_id, family), 0))
        self.asked[name] = set_id, family
        return name

    def ports(self, ports: tuple[PortRange, ...]) -> str | None:
        """Return the name of the set of these ports, None where the kernel has no such sets."""
        if not self._port_sets:
            return None
        name = port_set_name(ports)
        self.asked_ports[name] = ports
        return name


@dataclass(frozen=True, slots=True)
class Decision:
    """``entry``: target that decides about a packet, such as ``-g CHAIN``; the chains it needs, what they ask by kernel name.

    ``sets``: each the members of one family of an address set.
    """

    entry: str
    chains: Mapping[str, Chain]
    sets: Mapping[str, tuple[SetId, int]]
    ports: Mapping[str, tuple[PortRange, ...]]


@dataclass(slots=True)
class _Work:
    """One stack's chains in the making."""

    direction: Direction
    family: int
    naming: Naming
    chains: dict[str, Chain] = field(default_factory=dict)

    def add(self, rules: tuple[str, ...]) -> str:
        """Add a chain; return its name."""
        name = stack_chain(rules)
        self.chains[name] = Chain(rules)
        return name


@dataclass(slots=True)
class _Memo:
    """A stack's chains, and what they hold for: these policies, and of its sets just these that have moved to their second name."""

    decision: Decision
    policies: tuple[Policy, ...]
    sets: frozenset[str]
    moved: frozenset[str]

    @classmethod
    def of(cls, decision: Decision, policies: tuple[Policy, ...]) -> _Memo:
        names = dict(map(base_of, decision.sets))
        return cls(decision, policies, frozenset(names), frozenset(name for name, generation in names.items() if generation))

    def holds(self, policies: tuple[Policy, ...], generations: Mapping[str, int]) -> bool:
        moved = {name for name, generation in generations.items() if generation and name in self.sets}
        return moved == self.moved and self.policies == policies


@dataclass(slots=True)
class Decisions:
    """Renders stacks, each once as long as its policies and the names of its sets stay the same."""

    style: Style
    _memo: dict[tuple[Stack, Direction, int], _Memo] = field(default_factory=dict)
    _used: set[tuple[Stack, Direction, int]] = field(default_factory=set)

    def of(
        self, stack: Stack, policies: Mapping[PolicyId, Policy], direction: Direction, family: int, generations: Mapping[str, int]
    ) -> Decision:
        """Return the chains that decide as the stack says, for packets of one family."""
        key = (stack, direction, family)
        self._used.add(key)
        content = tuple(map(policies.__getitem__, itertools.chain.from_iterable(tier.policies for tier in stack)))
        known = self._memo.get(key)
        if known is None or not known.holds(content, generations):
            work = _Work(direction, family, Naming(generations, port_sets=self.style.port_sets))
            known = self._memo[key] = _Memo.of(self._render(stack, policies, work), content)
        return known.decision

    def tidy(self) -> None:
        """Forget what has not been asked for since the last call."""
        self._memo = {key: memo for key, memo in self._memo.items() if key in self._used}
        self._used = set()

    def _render(self, stack: Stack, policies: Mapping[PolicyId, Policy], work: _Work) -> Decision:
        beyond = "-j RETURN"
        for part in reversed(self._parts(stack, policies)):
            lines = [line for step in part for line in self._step(step, beyond, work)]
            if lines and beyond != "-j RETURN" and not part[-1].ends:
                lines.append(beyond)
            if lines:
                beyond = f"-g {work.add(tuple(lines))}"
        asked = {name for chain in work.chains.values() for name in chain.sets}
        sets = {name: members for name, members in work.naming.asked.items() if name in asked}
        return Decision(beyond, work.chains, sets, {name: ports for name, ports in work.naming.asked_ports.items() if name in asked})

    def _parts(self, stack: Stack, policies: Mapping[PolicyId, Policy]) -> tuple[Part, ...]:
        """Return the stack's parts; one that denies everything where they cannot be said: what we cannot do fails closed."""
        try:
            return parts_of(stack, policies)
        except StackRefused as refused:
            _log.error("policies refused, everything is denied", tiers=[tier.name for tier in stack], reason=str(refused))
            return ((Step(ANY, Action.DENY, 0, f"refused/{stack[0].name}"),),)

    def _step(self, step: Step, beyond: str, work: _Work) -> Iterator[str]:
        ways = alternatives(step.match, work.family, work.naming, ingress=work.direction is Direction.INGRESS, action=step.action)
        if step.action is Action.LOG:
            yield from self._logging(step, ways, work)
            return
        if step.action is Action.DENY and self.style.log_denied:
            yield from self._logging(step, ways, work)
        comment = _comment(step, "pass " if step.action is Action.PASS else "")
        target = {Action.ALLOW: "-j RETURN", Action.DENY: self.style.deny, Action.PASS: beyond}[step.action]
        for way in ways:
            yield f"{way}{comment}{target}"

    def _logging(self, step: Step, ways: Sequence[str], work: _Work) -> Iterator[str]:
        """Yield rules that log a packet once, although several alternatives may fit: the first that does goes where the log is."""
        log = f"{_LOG_LIMIT}{_comment(step)}{self.style.log(step, work.direction)}"
        if len(ways) == 1:
            yield f"{ways[0]}{log}"
        elif ways:
            once = log_chain((log,))
            work.chains[once] = Chain((log,))
            choice = tuple(f"{way}-g {once}" for way in ways)
            work.chains[log_chain(choice)] = Chain(choice)
            yield f"{_comment(step)}-j {log_chain(choice)}"


def _comment(step: Step, word: str = "") -> str:
    """A rule that decides has its id first in the comment: that is how its counter is found."""
    return f'-m comment --comment "{word}{step.rule_id:08x} {step.label}" '
