"""A dataplane of nftables, as somebody writes it who has read only the how-to: chains and sets, all replaced at once.

A statement is a chain and a rule, or a set and an element. What nft lists looks otherwise than what it was given; so everything
has its statement's own text as its comment, and that is read back.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from itertools import product

from polyplane.ir.cidr import Cidr
from polyplane.ir.features import Feature
from polyplane.ir.program import Action, DenyAction, Direction, Endpoint, Established, Match, Program, Stack, TierEnd, digest

#: What the dataplane cannot do, with the reason; the core denies what would need it before it comes here.
MISSING = {
    Feature.COUNTERS: "packets are not counted yet",
    Feature.LOG: "nobody would read the log",
    **dict.fromkeys((Feature.ICMP_TYPES, Feature.SOURCE_PORTS, Feature.NEGATION), "no policy that we have asks for it"),
}

_HOOKS = {name: f"type filter hook {name} priority 0;" for name in ("forward", "input", "output")}
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_COMMENT = re.compile(r'comment "([^"]*)"')
#: A bit of the packet's mark: some tier has allowed it, so those that follow are not asked.
_ALLOWED = 1 << 28
_MIDDLE = "ct state new tcp flags & (fin | syn | rst | ack) != syn drop"


def statements(program: Program) -> list[str]:
    """Return ``chain rule`` for every rule and ``@set element`` for every element, in the order in which rules are asked."""
    if not program.endpoints:
        return []
    keep = program.options.established is Established.KEEP
    lines = []
    for hook in ("forward", "input"):
        lines += [f"{hook} icmpv6 type 133-137 accept", f"{hook} meta l4proto {{ 1, 58 }} ct state related accept"]
        lines.append(f"{hook} {'' if keep else 'ct direction reply '}ct state established,related accept")
        lines.append(f"{hook} jump from")
    lines += ["forward jump to", "forward jump middle-from", "forward jump middle-to", "output jump middle-to"]
    lines += [f"to {_address('s', node)} return" for node in sorted(program.node_addresses)]
    lines += ["refuse meta l4proto 6 reject with tcp reset", "refuse reject with icmpx admin-prohibited"]
    lines += [f"allow meta mark set meta mark | {_ALLOWED:#x}", f"done meta mark set meta mark & {0xFFFFFFFF ^ _ALLOWED:#x}"]
    shared: dict[str, None] = {}
    for name in sorted(program.endpoints):
        for line in _endpoint(program, program.endpoints[name]):
            shared[line] = None
    lines += shared
    for name, addresses in sorted(program.sets.items()):
        outer = [cidr for cidr in sorted(addresses.members) if not any(cidr != other and other.covers(cidr) for other in addresses.members)]
        lines += [f"@v{cidr.family}-{name} {cidr}" for cidr in outer]
    return sorted(lines, key=_place)


def _endpoint(program: Program, endpoint: Endpoint) -> Iterator[str]:
    for direction, side, guard in ((Direction.EGRESS, "from", "middle-to"), (Direction.INGRESS, "to", "middle-from")):
        stack = endpoint.stack(direction)
        if stack:
            rules = list(_tiers(program, direction, stack))
            chain = f"{side}-{digest(*rules)}"  # the same for all endpoints with the same rules
            own = [cidr for cidr in endpoint.addresses if all(tier.exempts_self for tier in stack)]
            yield from (f"{side} {_address('s', cidr)} {_address('d', cidr)} return" for cidr in own)
            yield from (f"{side} {where} goto {chain}" for where in _ends(endpoint, side))
            # a connection that the kernel has forgotten must not come back with client and server exchanged
            yield from (f"{guard} {where} {_MIDDLE}" for where in _ends(endpoint, guard.removeprefix("middle-")))
            yield from (rule.replace("STACK", chain) for rule in rules)


def _ends(endpoint: Endpoint, side: str) -> list[str]:
    """How packets from the endpoint, or to it, are told from others."""
    if endpoint.interface is not None:
        return [f"{'iifname' if side == 'from' else 'oifname'} {endpoint.interface}"]
    return [_address("s" if side == "from" else "d", cidr) for cidr in endpoint.addresses]


def _tiers(program: Program, direction: Direction, stack: Stack) -> Iterator[str]:
    deny = "goto refuse" if program.options.deny_action is DenyAction.REJECT else "drop"
    verbs = {Action.ALLOW: "goto allow", Action.DENY: deny, Action.PASS: "return"}
    for number, tier in enumerate(stack):
        # Called one after the other: if each went on to the next, nf_tables would follow sixteen of them and no more.
        yield f"STACK jump STACK-{number}"
        yield f"STACK-{number} meta mark & {_ALLOWED:#x} != 0 return"
        for policy in tier.policies:
            for rule in program.policies[policy].rules:
                yield from (f"STACK-{number} {way}{verbs[rule.action]}" for way in _ways(rule.match, direction))
        if tier.end is TierEnd.DENY:
            yield f"STACK-{number} {deny}"
    yield "STACK goto done"


def _ways(match: Match, direction: Direction) -> Iterator[str]:
    """Yield conditions of which any one means that the match holds."""
    side = "saddr" if direction is Direction.INGRESS else "daddr"
    ports = [f"{_PROTOCOLS[match.protocol or 0]} dport {ports} " for ports in match.ports]
    if not ports:
        ports = [""] if match.protocol is None else [f"meta l4proto {match.protocol} "]
    for family, word in ((4, "ip"), (6, "ip6")):
        if match.family in (None, family):
            terms = []
            for term in match.peer:
                ways = [f"{word} {side} {'!= ' if term.negated else ''}@v{family}-{name} " for name in term.sets]
                terms.append(["".join(ways)] if term.negated else ways)
            yield from (f"meta nfproto ipv{family} " + "".join(parts) for parts in product(*terms, ports))


def _address(side: str, cidr: Cidr) -> str:
    return f"{'ip' if cidr.family == 4 else 'ip6'} {side}addr {cidr}"


def _place(statement: str) -> str:
    return statement.partition(" ")[0]


def exchange(wanted: list[str] | None, place: str) -> list[str]:
    """Read our table; then replace it in one transaction, which the kernel takes in whole or not at all."""
    listed = subprocess.run(["nft", "list", "table", "inet", place], capture_output=True, text=True, check=False).stdout
    name, found = "", []
    for line in map(str.strip, listed.splitlines()):
        if line.startswith(("chain ", "set ")):
            name = line.split()[1] if line.startswith("chain ") else f"@{line.split()[1]}"
        found += [f"{name} {text}" for text in _COMMENT.findall(line)]
    if wanted is not None:
        text = f"table inet {place} {{ }}\ndelete table inet {place}\n" + (_table(wanted, place) if wanted else "")
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr)
    return sorted(found, key=_place)


def _table(wanted: list[str], place: str) -> str:
    parts: dict[str, list[str]] = {name: [] for name in _HOOKS}
    for name, text in (statement.split(" ", 1) for statement in wanted):
        parts.setdefault(name, []).append(f'{text} comment "{text}"')
        for needed in re.findall(r"(?:goto|jump) (\S+)$|(@\S+)", text):
            parts.setdefault("".join(needed), [])
    lines = []
    for name, texts in sorted(parts.items()):  # sets first: "@" comes before letters
        if name.startswith("@"):
            elements = f"elements = {{ {', '.join(texts)} }}" if texts else ""
            lines.append(f"set {name[1:]} {{ type ipv{name[2]}_addr; flags interval; {elements} }}")
        else:
            lines += [f"chain {name} {{ {_HOOKS.get(name, '')}", *texts, "}"]
    return f"table inet {place} {{\n" + "\n".join(lines) + "\n}\n"
