"""`Decisions`: stacks of tiers as chains, shared by all endpoints with equal stacks.

A chain decides by ``RETURN`` (allowed: the other direction still decides, then the rules of others) and ``DROP``. It is entered
by ``-g``, so that RETURN leads back to the chain that asked for the direction, however many tiers lie between: no mark is
needed to carry a verdict, and none of the packet's or connection's marks is touched.

Tiers follow one another in one chain; only where a rule passes to the next tier, that one begins a chain of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from polyplane.backend_kit.labels import isolation_label, origin_label
from polyplane.ir.program import Action, DenyAction, Direction, Policy, PolicyId, Rule, SetId, Stack, TierEnd
from polyplane_iptables.matches import Sets, alternatives
from polyplane_iptables.native import Chain
from polyplane_iptables.owned import REJECT, log_chain, set_name, stack_chain

#: Limited, because whoever sends the packets must not be able to fill the node's log.
_LOG_LIMIT: Final = "-m limit --limit 10/sec "


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all decisions have in common. ``log_group`` None: the kernel log."""

    deny_action: DenyAction = DenyAction.DROP
    log_group: int | None = None

    @property
    def deny(self) -> str:
        """Target of a denial."""
        return f"-g {REJECT}" if self.deny_action is DenyAction.REJECT else "-j DROP"

    def log(self, rule_id: int) -> str:
        """Target of a rule that logs."""
        prefix = f'"polyplane {rule_id:08x} "'
        if self.log_group is None:
            return f"-j LOG --log-prefix {prefix}"
        return f"-j NFLOG --nflog-prefix {prefix}" + (f" --nflog-group {self.log_group}" if self.log_group else "")


class Naming(Sets):
    """Kernel names of sets, and which sets they were asked for."""

    def __init__(self, generations: Mapping[str, int]) -> None:
        self._generations: Final = generations
        self.asked: Final[dict[str, SetId]] = {}

    def name(self, set_id: SetId, family: int) -> str:
        """See `Sets`."""
        name = set_name(set_id, family, self._generations.get(set_name(set_id, family), 0))
        self.asked[name] = set_id
        return name


@dataclass(frozen=True, slots=True)
class Decision:
    """``entry``: target that decides about a packet, such as ``-g CHAIN``; the chains it needs, the sets they ask by kernel name."""

    entry: str
    chains: Mapping[str, Chain]
    sets: Mapping[str, SetId]


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
    decision: Decision
    policies: tuple[Policy, ...]


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
        content = tuple(policies[policy_id] for tier in stack for policy_id in tier.policies)
        known = self._memo.get(key)
        naming = Naming(generations)
        if known is not None and all(map(_same, known.policies, content)):
            sets = known.decision.sets
            if all(naming.name(set_id, family) == name for name, set_id in sets.items()):
                return known.decision
        decision = self._render(stack, policies, _Work(direction, family, naming))
        self._memo[key] = _Memo(decision, content)
        return decision

    def tidy(self) -> None:
        """Forget what has not been asked for since the last call."""
        self._memo = {key: memo for key, memo in self._memo.items() if key in self._used}
        self._used = set()

    def _render(self, stack: Stack, policies: Mapping[PolicyId, Policy], work: _Work) -> Decision:
        following: tuple[str, ...] = ()
        for tier in reversed(stack):
            rules = [rule for policy_id in tier.policies for rule in policies[policy_id].rules]
            beyond = "-j RETURN"
            passes = any(rule.action is Action.PASS for rule in rules)
            if following and passes:
                beyond = f"-g {work.add(following)}"
            lines = [line for rule in rules for line in self._rule(rule, beyond, work)]
            if tier.end is TierEnd.DENY and tier.isolation is not None:
                lines.append(f"{_comment(tier.isolation.id, isolation_label(tier.isolation.origins))}{self.style.deny}")
            elif following and passes:
                lines.append(beyond)
            else:
                lines += following
            following = tuple(lines)
        entry = f"-g {work.add(following)}" if following else "-j RETURN"
        asked = {name for chain in work.chains.values() for name in chain.sets}
        return Decision(entry, work.chains, {name: set_id for name, set_id in work.naming.asked.items() if name in asked})

    def _rule(self, rule: Rule, beyond: str, work: _Work) -> Iterator[str]:
        ways = alternatives(rule.match, work.family, work.naming, ingress=work.direction is Direction.INGRESS, action=rule.action)
        comment = _comment(rule.id, origin_label(rule.origin), "pass " if rule.action is Action.PASS else "")
        if rule.action is not Action.LOG:
            target = {Action.ALLOW: "-j RETURN", Action.DENY: self.style.deny, Action.PASS: beyond}[rule.action]
            for way in ways:
                yield f"{way}{comment}{target}"
        elif len(ways) == 1:
            yield f"{ways[0]}{_LOG_LIMIT}{comment}{self.style.log(rule.id)}"
        elif ways:
            # A packet that fits several alternatives is logged once: the first that fits goes where the log is.
            log = (f"{_LOG_LIMIT}{comment}{self.style.log(rule.id)}",)
            once = log_chain(log)
            work.chains[once] = Chain(log)
            choice = tuple(f"{way}-g {once}" for way in ways)
            work.chains[log_chain(choice)] = Chain(choice)
            yield f"{comment}-j {log_chain(choice)}"


def _same(one: Policy, other: Policy) -> bool:
    return one is other or one == other


def _comment(rule_id: int, label: str, word: str = "") -> str:
    """A rule that decides has its id first in the comment: that is how its counter is found."""
    return f'-m comment --comment "{word}{rule_id:08x} {label}" '
