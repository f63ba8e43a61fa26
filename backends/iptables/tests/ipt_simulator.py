"""A packet's way through the native model, in Python, and a kernel that carries out the steps of a plan.

It knows only the words this backend writes and fails on any other. It takes each packet for the first of a connection, or for one of
an answered connection's own direction if it is told so; those have marks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet
from polyplane.ir.members import Members
from polyplane_iptables.native import Chain, Filter, Native
from polyplane_iptables.owned import EPOCH_SETS, PORT_SETS, PREFIX, REJECT
from polyplane_iptables.plan import Plan

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "ipv6-icmp": 58}


@dataclass
class Seen:
    """What became of a packet, the rule ids that decided, and the ids logged."""

    allowed: bool
    decided: list[int] = field(default_factory=list)
    logged: list[int] = field(default_factory=list)


#: Connections' marks, by their packets.
Marks = dict[Packet, int]


class Simulator:
    def __init__(self, native: Native, marks: Marks | None = None) -> None:
        self.native = native
        self.marks: Marks = {} if marks is None else marks

    def forward(self, packet: Packet, iifname: str, oifname: str, hook: str = "FORWARD", *, state: str = "") -> Seen:
        """Follow a packet; ``state``: ESTABLISHED or RELATED, else its connection begins."""
        self.state = state
        self.packet, self.iifname, self.oifname = packet, iifname, oifname
        self.filter = self.native.filters[packet.source.family]
        self.seen = Seen(allowed=True)
        for _, rule in self.filter.jumps.get(hook, ()):
            target = shlex.split(rule)[-1]
            if self.chain(target, 0) == "DROP":
                self.seen.allowed = False
        return self.seen

    def chain(self, name: str, depth: int) -> str:
        assert depth < 15, "nf_tables follows 15 chains"
        if name == REJECT:
            return "DROP"
        for rule in self.filter.chains[name].rules:
            matched, target, goto = self.rule(rule)
            if not matched:
                continue
            if target in ("RETURN", "DROP"):
                return target
            if target in ("LOG", "NFLOG", "CONNMARK"):
                continue
            verdict = self.chain(target, depth + 1)
            if goto or verdict == "DROP":
                return verdict
        return "RETURN"

    def rule(self, text: str) -> tuple[bool, str, bool]:
        words = iter(shlex.split(text))
        holds, negated, rule_id, target, goto = True, False, 0, "", False
        for word in words:
            if word == "!":
                negated = True
                continue
            if word == "-m":
                next(words)
                continue
            if word == "--comment":
                found = re.match(r"([0-9a-f]{8})( |$)", next(words))
                rule_id = int(found[1], 16) if found else 0
                continue
            if word in ("-j", "-g"):
                target, goto = next(words), word == "-g"
                continue
            if word == "--set-xmark":
                value, mask = (int(part, 16) for part in next(words).split("/"))
                if holds:
                    self.marks[self.packet] = self.marks.get(self.packet, 0) & ~mask ^ value
                continue
            if word == "--log-prefix":
                prefix = next(words)
                if holds:
                    self.seen.logged.append(int(prefix.split()[1], 16))
                continue
            holds = (self.condition(word, words) is not negated) and holds
            negated = False
        if holds and rule_id and (target in ("RETURN", "DROP") or target == REJECT):
            self.seen.decided.append(rule_id)
        return holds, target, goto

    def condition(self, word: str, words: Iterator[str]) -> bool:  # noqa: PLR0911 (one return for each word it knows)
        packet = self.packet
        match word:
            case "-p":
                name = next(words)
                return packet.protocol == _PROTOCOLS.get(name, int(name) if name.isdecimal() else -1)
            case "-i" | "-o":
                name, wanted = (self.iifname if word == "-i" else self.oifname), next(words)
                return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted
            case "-s" | "-d":
                return Cidr.parse(next(words)).covers(packet.source if word == "-s" else packet.destination)
            case "--dport" | "--dports" | "--sport" | "--sports":
                texts = next(words).split(",")
                assert sum(2 if ":" in text else 1 for text in texts) <= 15
                return any(_in(packet.port if "dport" in word else packet.source_port, text) for text in texts)
            case "--icmp-type" | "--icmpv6-type":
                kind, _, code = next(words).partition("/")
                return packet.icmp is not None and packet.icmp.type == int(kind) and code in ("", str(packet.icmp.code))
            case "--match-set":
                name, side = next(words), next(words)
                if name.startswith(PORT_SETS):
                    return (packet.port if side == "dst" else packet.source_port) in self.native.ports[name]
                address = packet.source if side == "src" else packet.destination
                assert name in self.native.sets, f"{name} is not there"
                return self.native.sets[name].covers_address(address.family, address.address)
            case "--ctstate":
                return self.state in next(words).split(",")
            case "--ctdir":
                return next(words) == "ORIGINAL"
            case "--mark":
                value, _, mask = next(words).partition("/")
                return self.marks.get(packet, 0) & int(mask or "0xffffffff", 16) == int(value, 16)
            case "--limit":
                next(words)
                return True
            case "--tcp-flags":
                next(words), next(words)
                return True
            case "--u32":
                next(words)
                return packet.protocol == 0
        raise AssertionError(f"what is {word}?")


def _in(port: int, text: str) -> bool:
    first, _, last = text.partition(":")
    return int(first) <= port <= int(last or first)


def stages(native: Native, made: Plan, marks: Marks | None = None) -> Iterator[None]:
    """Carry out a plan on a native state, with a pause after everything that the kernel does in one go."""
    for step in made.steps:
        if step.clears:
            for packet in marks or ():
                if packet.source.family == step.tool:
                    marks[packet] &= ~step.clears
            yield
        elif step.tool:
            commit(native.filters[step.tool], step.text)
            yield
        else:
            for line in step.text.splitlines():
                change_sets(native, line)
                yield
    for name in made.destroy:
        assert name not in native.referenced(), f"{name} is still asked"
        (native.ports if name.startswith(PORT_SETS) else native.epochs if name.startswith(EPOCH_SETS) else native.sets).pop(name)
        yield


def change_sets(native: Native, line: str) -> None:
    """Carry out a command of an ipset restore -exist."""
    match line.split():
        case ["create", name, "hash:net", "family", "inet", *_] if name.startswith(EPOCH_SETS):
            native.epochs.setdefault(name, frozenset())
        case ["flush", name]:
            native.epochs[name] = frozenset()
        case ["add" | "del" as verb, name, epoch] if name.startswith(EPOCH_SETS):
            one = {Cidr.parse(epoch).address}
            native.epochs[name] = native.epochs[name] | one if verb == "add" else native.epochs[name] - one
        case ["create", name, "hash:net", "family", _, "hashsize", _, "maxelem", _]:
            assert name not in native.sets
            native.sets[name] = Members()
        case ["create", name, "bitmap:port", "range", "0-65535"]:
            native.ports[name] = frozenset()
        case ["destroy", name]:
            assert name not in native.referenced(), f"{name} is still asked"
            native.sets.pop(name, None)
        case ["swap", one, other]:
            native.sets[one], native.sets[other] = native.sets[other], native.sets[one]
        case ["add", name, member] if name.startswith(PORT_SETS):
            first, _, end = member.partition("-")
            native.ports[name] |= set(range(int(first), int(end or first) + 1))
        case ["add", name, member]:
            assert not member.endswith("/0")
            native.sets[name] = native.sets[name].changed(added=[Cidr.parse(member)])
        case ["del", name, member]:
            native.sets[name] = native.sets[name].changed(removed=[Cidr.parse(member)])
        case _:
            raise AssertionError(line)


def commit(table: Filter, text: str) -> None:
    """Carry out the input of an iptables-restore --noflush."""
    chains = {name: list(chain.rules) for name, chain in table.chains.items()}
    jumps = {name: [rule for _, rule in some] for name, some in table.jumps.items()}

    def rules(name: str) -> list[str]:
        return chains[name] if name.startswith(PREFIX) else jumps.setdefault(name, [])

    lines = text.splitlines()
    assert lines[0] == "*filter"
    assert lines[-1] == "COMMIT"
    for line in lines[1:-1]:
        verb, _, rest = line.partition(" ")
        name, _, rule = rest.partition(" ")
        if line.startswith(":"):
            chains[verb[1:]] = []
        elif verb == "-A":
            rules(name).append(rule)
        elif verb == "-I":
            place, _, rule = rule.partition(" ")
            assert 0 < int(place) <= len(rules(name)) + 1
            rules(name).insert(int(place) - 1, rule)
        elif verb == "-D":
            rules(name).remove(rule)
        elif verb == "-F":
            chains[name] = []
        elif verb == "-X":
            assert not chains.pop(name)
            assert not any(f" {name}" in f" {rule} "[:-1] and rule.split()[-1] == name for some in chains.values() for rule in some), name
        else:
            raise AssertionError(line)
    table.chains = {name: Chain(some) for name, some in chains.items()}
    table.jumps = {name: tuple(enumerate(some, 1)) for name, some in jumps.items() if some}
