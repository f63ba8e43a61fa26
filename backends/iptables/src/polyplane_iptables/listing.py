"""What ``iptables-save`` and ``ipset save`` print, back to the native model. Pure.

Only what is ours is looked at, however much else is there.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from polyplane.ir.cidr import Cidr
from polyplane.ir.members import Members
from polyplane_iptables.native import Chain, Filter, Jump
from polyplane_iptables.owned import EPOCH_SETS, PORT_SETS, PREFIX, is_ours
from polyplane_iptables.setplan import FAMILY_WORD, MAX_ELEMENTS, PORT_SET_TYPE, SET_TYPE

_TO_US: Final = re.compile(rf"-[jg] {PREFIX}\S+(?: |$)")
_COUNTED: Final = re.compile(r"\[(\d+):(\d+)\] -A (\S+) (.*)")
_RULE_ID: Final = re.compile(r'--comment "?([0-9a-f]{8})[ "].* (-[jg] \S+)')
_DECIDES: Final = ("-j RETURN", "-j DROP", f"-g {PREFIX}reject")


def parse_table(text: str) -> Filter:
    """Read our part of ``iptables-save -t filter``."""
    chains: dict[str, list[str]] = {}
    jumps: dict[str, list[Jump]] = {}
    places: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith(f":{PREFIX}"):
            chains[line[1:].partition(" ")[0]] = []
        elif line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            if is_ours(name):
                chains.setdefault(name, []).append(rule)
                continue
            places[name] = places.get(name, 0) + 1
            if _TO_US.search(rule):
                jumps.setdefault(name, []).append((places[name], rule))
    return Filter({name: Chain(rules) for name, rules in chains.items()}, {name: tuple(some) for name, some in jumps.items()})


@dataclass(slots=True)
class Sets:
    """Our sets: members, ports and epochs by name, and names of sets of another kind than ours."""

    members: dict[str, Members] = field(default_factory=dict)
    ports: dict[str, frozenset[int]] = field(default_factory=dict)
    epochs: dict[str, frozenset[int]] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)


def parse_sets(text: str) -> Sets:
    """Read our sets from ``ipset save``."""
    found: dict[str, list[str]] = {}
    strangers: set[str] = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or not is_ours(words[1]):
            continue
        if words[0] == "create":
            found[words[1]] = []
            if not _is_our_kind(words):
                strangers.add(words[1])
        elif words[0] == "add" and words[1] in found:
            if len(words) > 3:
                strangers.add(words[1])
            else:
                found[words[1]].append(words[2])
    ours = {name: elements for name, elements in found.items() if name not in strangers}
    return Sets(
        {name: Members(map(_cidr, elements)) for name, elements in ours.items() if not name.startswith((PORT_SETS, EPOCH_SETS))},
        {name: frozenset(map(int, elements)) for name, elements in ours.items() if name.startswith(PORT_SETS)},
        {name: frozenset(_cidr(element).address for element in elements) for name, elements in ours.items() if name.startswith(EPOCH_SETS)},
        strangers,
    )


def _is_our_kind(words: list[str]) -> bool:
    _, name, kind, *rest = words
    if name.startswith(PORT_SETS):
        return [kind, *rest] == PORT_SET_TYPE.split()
    epochs = name.startswith(EPOCH_SETS)
    family = FAMILY_WORD[4] if epochs else {str(number): word for number, word in FAMILY_WORD.items()}.get(name.removeprefix(PREFIX)[:1])
    options = dict(zip(rest[::2], rest[1::2], strict=False))
    known = {"family", "hashsize", "maxelem", "bucketsize", "initval"}
    return (
        len(rest) % 2 == 0
        and kind == SET_TYPE
        and options.keys() <= known
        and options.get("family") == family
        and int(options.get("maxelem", "0")) >= (1 if epochs else MAX_ELEMENTS)
    )


def _cidr(text: str) -> Cidr:
    """Read an element; `socket` because a set may have 100,000 of them."""
    address, _, length = text.partition("/")
    if ":" in address:
        return Cidr(6, int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big"), int(length or 128))
    return Cidr(4, int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big"), int(length or 32))


class Count(NamedTuple):
    """What one rule counted."""

    chain: str
    rule: str
    rule_id: int
    packets: int
    bytes: int


def parse_counters(text: str) -> Iterable[Count]:
    """Yield the counters of every rule of ours that decides, from ``iptables-save -c``."""
    for line in text.splitlines():
        found = _COUNTED.match(line)
        what = _RULE_ID.search(found[4]) if found and is_ours(found[3]) else None
        if found and what and what[2] in _DECIDES and int(what[1], 16):
            yield Count(found[3], found[4], int(what[1], 16), int(found[1]), int(found[2]))


# --- wording ---


def reworded(found: Filter, wanted: Filter, learned: Mapping[str, str]) -> Filter:
    """Return what was found in the words in which it is wanted, wherever it means the same.

    iptables prints some things unlike they were written (``47`` as ``gre`` where /etc/protocols knows it), and other versions
    may print others so.

    :param learned: rules as this machine prints them, with what was written (`learn`)
    """
    chains = dict(found.chains)
    for name, chain in found.chains.items():
        model = wanted.chains.get(name)
        if model is None or model == chain:
            continue
        chains[name] = Chain(_reword(chain.rules, model.rules, learned))
    jumps = {
        name: tuple((place, _reword((rule,), [text for _, text in wanted.jumps.get(name, ())], learned)[0]) for place, rule in some)
        for name, some in found.jumps.items()
    }
    return Filter(chains, jumps)


def _reword(found: Iterable[str], wanted: Iterable[str], learned: Mapping[str, str]) -> list[str]:
    exact = set(wanted)
    meanings = {canonical(rule): rule for rule in exact}
    words = []
    for rule in found:
        if rule in exact:
            words.append(rule)
        elif learned.get(rule) in exact:
            words.append(learned[rule])
        else:
            words.append(meanings.get(canonical(rule), rule))
    return words


def learn(found: Filter, wanted: Filter) -> dict[str, str]:
    """Return how rules just written are printed, where that is neither as written nor understood."""
    learned: dict[str, str] = {}
    for name, chain in wanted.chains.items():
        printed = found.chains.get(name)
        if printed is None or len(printed.rules) != len(chain.rules):
            continue
        learned.update((one, other) for one, other in zip(printed.rules, chain.rules, strict=True) if one != other)
    return learned


def canonical(rule: str) -> tuple[tuple[str, ...], ...]:
    """Return a rule's options in a wording that does not depend on who printed it."""
    try:
        words = shlex.split(rule)
    except ValueError:
        return ((rule,),)
    options: list[list[str]] = []
    negated = False
    for word in words:
        if word == "!":
            negated = True
        elif word.startswith("-") and len(word) > 1 and not word[1].isdecimal():
            options.append(["!", word] if negated else [word])
            negated = False
        elif options:
            options[-1].append(word)
    return tuple(_option(tuple(option)) for option in options)


def _option(option: tuple[str, ...]) -> tuple[str, ...]:
    match option:
        case (*head, "-p" as name, protocol):
            return (*head, name, protocol_number(protocol))
        case (*head, "-s" | "-d" as name, address):
            return (*head, name, _address(address))
        case (*head, "--ctstate" as name, states):
            return (*head, name, ",".join(sorted(states.split(","))))
        case (*head, "--u32" as name, test):
            return (*head, name, test.replace(" ", "").lower())
        case _:
            return option


def protocol_number(name: str) -> str:
    """Return a protocol's number as text, the name itself where nobody knows it."""
    if name.isdecimal():
        return name
    known = {"icmpv6": "58", "ipv6-icmp": "58", "icmp": "1", "tcp": "6", "udp": "17", "sctp": "132"}
    if name in known:
        return known[name]
    try:
        return str(socket.getprotobyname(name))
    except OSError:
        return name


def _address(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return text
    return str(network)
