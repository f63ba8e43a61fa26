"""Prefix trees: from a packet's interface or address to the endpoint, in few comparisons however many endpoints there are.

iptables compares rule after rule, but ``-i veth3+`` and ``-s 10.0.3.0/28`` ask about many endpoints at once. Each level asks for
the next character of the name, or the next four bits of the address, after what all keys have in common. Where the branches
end depends on the keys alone, so that an endpoint that comes or goes changes one rule of one chain, now and then a branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from polyplane.ir.cidr import BITS, Cidr
from polyplane_iptables.native import Chain, common_start
from polyplane_iptables.owned import address_chain, interface_chain

#: Up to so many keys are asked one after the other.
_LINEAR: Final = 8
#: Levels below the root. nf_tables follows 15 nested chains, and the trees are not all there is; two tell 2,048 keys apart.
_DEPTH: Final = 2
_STEP: Final = 4

K = TypeVar("K", str, Cidr)


@dataclass(frozen=True, slots=True)
class _Branch(Generic[K]):
    """Keys that share the next step: how a rule asks for them, and the chain that tells them apart."""

    condition: str
    chain: str
    keys: list[K]


@dataclass(slots=True)
class Tree:
    """Rules of the root, and the chains below it."""

    rules: tuple[str, ...] = ()
    chains: dict[str, Chain] = field(default_factory=dict)


def interface_tree(option: str, letter: str, targets: Mapping[str, str], tail: tuple[str, ...] = ()) -> Tree:
    """Return the tree over interface names.

    :param option: ``-i`` or ``-o``
    :param letter: the tree's own, for the names of its chains
    :param targets: interface name to the end of its rule, such as ``-g CHAIN``
    :param tail: rules for whatever no key of a branch fits
    """

    def split(names: list[str]) -> list[_Branch[str]]:
        depth = common_start(names[0], names[-1]) + 1  # they are sorted: how the first and the last begin, all do
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(name[:depth], []).append(name)
        return [_Branch(f"{option} {start}+ ", interface_chain(letter, start), group) for start, group in groups.items()]

    return _grow(sorted(targets), lambda name: f"{option} {name} {targets[name]}", split, tail)


def address_tree(option: str, letter: str, targets: Mapping[Cidr, str]) -> Tree:
    """Return the tree over addresses of one family; ``option`` is ``-s`` or ``-d``."""

    def split(addresses: list[Cidr]) -> list[_Branch[Cidr]]:
        bits = BITS[addresses[0].family]
        common = bits - (addresses[0].address ^ addresses[-1].address).bit_length()
        length = min(common // _STEP * _STEP + _STEP, bits)
        groups: dict[Cidr, list[Cidr]] = {}
        for address in addresses:
            groups.setdefault(address.prefix(length), []).append(address)
        return [_Branch(f"{option} {prefix} ", address_chain(letter, prefix), group) for prefix, group in groups.items()]

    return _grow(sorted(targets), lambda address: f"{option} {host_text(address)} {targets[address]}", split, ())


def host_text(address: Cidr) -> str:
    """Return an address as iptables-save prints it, with its length."""
    return f"{address.address_text}/{address.length}"


def _grow(keys: list[K], leaf: Callable[[K], str], split: Callable[[list[K]], list[_Branch[K]]], tail: tuple[str, ...]) -> Tree:
    tree = Tree()

    def rules(some: list[K], depth: int) -> tuple[str, ...]:
        if len(some) <= _LINEAR or depth == _DEPTH:
            return (*map(leaf, some), *tail)
        lines: list[str] = []
        for branch in split(some):
            if len(branch.keys) == 1:
                lines.append(leaf(branch.keys[0]))
            else:
                tree.chains[branch.chain] = Chain(rules(branch.keys, depth + 1))
                lines.append(f"{branch.condition}-g {branch.chain}")
        return (*lines, *tail)

    tree.rules = rules(keys, 0)
    return tree
