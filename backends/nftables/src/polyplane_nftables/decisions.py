"""Decision tables as chains, shared by everything that decides alike.

A table becomes a chain ``t_<digest>`` that sends the packet on by protocol and destination port, an outcome with conditions
a chain ``o_<digest>`` that tests them in order, and a verdict one of the chains ``a_<rule id>`` (count and return to the base
chain, where the other direction still decides) or ``d_<rule id>`` (count and deny). Everything is reached with ``goto``, so
``return`` means the same wherever it is said.

Protocols are written as numbers: names would need /etc/protocols, which slim containers lack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from polyplane.ir.evaluate import Verdict
from polyplane.ir.program import ICMP, ICMPV6, PROTOCOLS_WITH_PORTS, SCTP, TCP, UDP, DenyAction, IcmpType, Match, PortRange, digest
from polyplane.ir.tables import merge_ranges
from polyplane.ir.tabulate import Branch, Outcome, Row, Table
from polyplane_nftables.native import Chain, Native, Rule
from polyplane_nftables.owned import allow_chain, deny_chain

#: Up to so many port rows are plain rules; more become one lookup. Three rules cost a packet less than a lookup in an
#: interval set does, and each anonymous set makes every later edit of the table slower (nft reads all sets first).
_PLAIN_ROWS: Final = 3
_LAST_PORT: Final = 65535
_PORTED: Final = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_ICMP: Final = {ICMP: "icmp", ICMPV6: "icmpv6"}

#: The rules of a refusal, after the counter.
_REJECT: Final = (
    Rule("meta l4proto 6 reject with tcp reset"),
    Rule("reject with icmpx admin-prohibited", listed="reject with icmpx 3"),
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A chain to be: its name, its rules, and the chains they go to."""

    name: str
    rules: tuple[Rule, ...]
    needs: tuple[Spec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all decisions of a table have in common. ``label`` explains a rule id; ``log_group`` None: the kernel log."""

    deny_action: DenyAction
    label: Callable[[int], str]
    log_group: int | None = None


class Decisions:
    """The decision chains in use. Whoever points to a chain holds it; what nobody holds is removed."""

    def __init__(self, native: Native, style: Style) -> None:
        self._native: Final = native
        self._style: Final = style
        self._holders: Final[Counter[str]] = Counter()
        self._needs: Final[dict[str, tuple[str, ...]]] = {}
        self._specs: Final[dict[Table, Spec]] = {}
        #: The tables that look like a chain, and chains that somebody has let go of since `tidy`.
        self._tables: Final[dict[str, list[Table]]] = {}
        self._dropped: Final[set[str]] = set()

    def hold(self, table: Table) -> str:
        """Return the name of the chain that decides as ``table`` says, created if need be; `release` it once for each call."""
        spec = self._specs.get(table)
        if spec is None:
            spec = self._specs[table] = table_spec(table, self._style)
            self._tables.setdefault(spec.name, []).append(table)
        self._hold(spec)
        return spec.name

    def release(self, name: str) -> None:
        """Let go of a chain; the last one to do so removes it."""
        self._holders[name] -= 1
        if self._holders[name]:
            return
        del self._holders[name]
        self._dropped.add(name)
        self._native.set_chain(name, None)
        for need in self._needs.pop(name):
            self.release(need)

    def tidy(self) -> None:
        """Forget how tables look that are not in use; call between updates."""
        for name in self._dropped:
            if name not in self._holders:
                for table in self._tables.pop(name, ()):
                    del self._specs[table]
        self._dropped.clear()

    def _hold(self, spec: Spec) -> None:
        self._holders[spec.name] += 1
        if self._holders[spec.name] > 1:
            return
        self._native.set_chain(spec.name, Chain(spec.rules))
        self._needs[spec.name] = tuple(need.name for need in spec.needs)
        for need in spec.needs:
            self._hold(need)


def table_spec(table: Table, style: Style) -> Spec:
    """Return the chain for a decision table: that of its outcome where there is only one."""
    otherwise = outcome_spec(table.otherwise, style)
    if not table.rows:
        return otherwise
    needs = {outcome: outcome_spec(outcome, style) for outcome in {row.outcome: None for row in table.rows}}
    by_port = [row for row in table.rows if not _all_ports(row)]
    by_protocol = [row for row in table.rows if _all_ports(row)]
    rules = [*_port_rules(by_port, needs), *_protocol_rules(by_protocol, needs), Rule(f"goto {otherwise.name}")]
    return _named("t_", rules, (*needs.values(), otherwise))


def outcome_spec(outcome: Outcome, style: Style) -> Spec:
    """Return the chain for an outcome: a verdict, or its branches in order and then the verdict."""
    verdict = _verdict_spec(outcome, style)
    if not outcome.branches:
        return verdict
    rules: list[Rule] = []
    needs: list[Spec] = []
    for branch in outcome.branches:
        condition = condition_text(branch.condition)
        if branch.log:
            rules.append(_log_rule(condition, branch, style))
        if branch.then is not None:
            then = outcome_spec(branch.then, style)
            needs.append(then)
            rules.append(Rule(f"{condition}goto {then.name}"))
    return _named("o_", [*rules, Rule(f"goto {verdict.name}")], (*needs, verdict))


def condition_text(condition: Match) -> str:
    """Return what a rule must match for a branch's condition, with a space behind it; empty when it always holds."""
    parts = []
    if condition.protocol in _PORTED:
        keyword = f"{_PORTED[condition.protocol]} sport"
        if condition.source_ports:
            parts.append(f"{keyword} {_ports_text(condition.source_ports)}")
        if condition.not_source_ports:
            parts.append(f"{keyword} != {_ports_text(condition.not_source_ports)}")
    elif condition.protocol in _ICMP:
        keyword = f"{_ICMP[condition.protocol]} type . {_ICMP[condition.protocol]} code"
        if condition.icmp:
            parts.append(f"{keyword} {_icmp_text(condition.icmp)}")
        if condition.not_icmp:
            parts.append(f"{keyword} != {_icmp_text(condition.not_icmp)}")
    return "".join(f"{part} " for part in parts)


def _named(kind: str, rules: Iterable[Rule], needs: tuple[Spec, ...]) -> Spec:
    """Name a chain by its content: equal decisions share one chain, on every node and after every restart."""
    content = tuple(rules)
    return Spec(kind + digest(*(rule.full_text for rule in content)), content, needs)


def _verdict_spec(outcome: Outcome, style: Style) -> Spec:
    label = f"{outcome.rule_id:08x} {style.label(outcome.rule_id)}"
    if outcome.verdict is Verdict.ALLOW:
        return Spec(allow_chain(outcome.rule_id), (Rule("counter return", label),))
    if style.deny_action is DenyAction.REJECT:
        return Spec(deny_chain(outcome.rule_id), (Rule("counter", label), *_REJECT))
    return Spec(deny_chain(outcome.rule_id), (Rule("counter drop", label),))


def _log_rule(condition: str, branch: Branch, style: Style) -> Rule:
    """Limited, because whoever sends the packets must not be able to fill the node's log."""
    group = "" if style.log_group is None else f" group {style.log_group}"
    return Rule(
        f'{condition}limit rate 10/second log prefix "polyplane {branch.log:08x} "{group}', f"{branch.log:08x} {style.label(branch.log)}"
    )


def _all_ports(row: Row) -> bool:
    return row.protocol not in PROTOCOLS_WITH_PORTS or (row.first == 0 and row.last == _LAST_PORT)


def _port_rules(rows: list[Row], needs: dict[Outcome, Spec]) -> list[Rule]:
    if len(rows) <= _PLAIN_ROWS:
        return [Rule(f"{_PORTED[row.protocol]} dport {PortRange(row.first, row.last)} goto {needs[row.outcome].name}") for row in rows]
    # The protocol is part of the key, so what ``th dport`` reads from a protocol without ports never decides.
    elements = ", ".join(f"{row.protocol} . {PortRange(row.first, row.last)} : goto {needs[row.outcome].name}" for row in rows)
    return [Rule(f"meta l4proto . th dport vmap {{ {elements} }}")]


def _protocol_rules(rows: list[Row], needs: dict[Outcome, Spec]) -> list[Rule]:
    if len(rows) <= 1:
        return [Rule(f"meta l4proto {row.protocol} goto {needs[row.outcome].name}") for row in rows]
    elements = ", ".join(f"{row.protocol} : goto {needs[row.outcome].name}" for row in rows)
    return [Rule(f"meta l4proto vmap {{ {elements} }}")]


def _ports_text(ranges: Iterable[PortRange]) -> str:
    merged = [str(PortRange(*pair)) for pair in merge_ranges(ranges)]
    return merged[0] if len(merged) == 1 else f"{{ {', '.join(merged)} }}"


def _icmp_text(types: Iterable[IcmpType]) -> str:
    """Write ICMP types and codes as one set; a type that is wanted whole swallows its single codes (else EEXIST)."""
    whole = {icmp.type for icmp in types if icmp.code is None}
    single = {(icmp.type, icmp.code) for icmp in types if icmp.code is not None and icmp.type not in whole}
    keys = sorted([(number, 0, 255) for number in whole] + [(number, code, code) for number, code in single])
    return "{ " + ", ".join(f"{number} . {PortRange(first, last)}" for number, first, last in keys) + " }"
