"""`lower`: the rules of one policy object in one direction become rules of the IR.

Selectors, ``except`` and named ports vanish here, once, so that no backend can get them wrong:

* A rule's peers are or-ed; those that are plain sets go into one IR rule, each block with ``except`` into one of its own.
* A named port on ingress is a number of the subject's own containers, so the policy differs between subjects that number
  the name differently. On egress it is a number of each peer, so there is one set for each number.
* What the backend cannot do fails closed: an allow rule then matches nothing, a deny or pass rule denies everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from polyplane.cluster.model import CidrPeer, ClusterPolicy, ContainerPort, NodePeer, Peer, PodPeer, PodSelector, PolicyRule, PortMatch
from polyplane.compile.resolve import Cidrs, NamedPorts, Nodes, PeerSets, Pods, Wanted
from polyplane.compile.rule_ids import RuleIds
from polyplane.ir.cidr import Family
from polyplane.ir.features import Capabilities, required_features
from polyplane.ir.program import (
    ANY,
    Action,
    Direction,
    IcmpType,
    Match,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    PortRange,
    Rule,
    SetId,
    digest,
)

#: Any pod of the cluster: what "any peer" means for a named port, which only pods have.
_ANY_POD: Final = PodSelector()

#: What a subject's containers call their ports: name and protocol to numbers. Empty where the policy does not ask.
PortNames = Mapping[tuple[str, int | None], tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True)
class _Alternative:
    """One way for a peer to match: the terms must all hold, for this family unless None."""

    terms: tuple[PeerTerm, ...] = ()
    family: Family | None = None


def origin_of(policy: ClusterPolicy, direction: Direction, index: int | None) -> Origin:
    """Return where a rule (or, with ``index`` None, the isolation) of a policy comes from."""
    return Origin(kind=policy.key.kind, namespace=policy.key.namespace, name=policy.key.name, direction=direction, index=index)


def wanted_by(policy: ClusterPolicy) -> Iterator[Wanted]:
    """Yield every set that the policy's rules ask for; some more than once."""
    for direction, rules in policy.rules.items():
        for rule in rules:
            yield from _wanted_by_rule(rule, direction)


def _wanted_by_rule(rule: PolicyRule, direction: Direction) -> Iterator[Wanted]:
    names = [port for port in rule.ports or () if port.name is not None] if direction is Direction.EGRESS else []
    if rule.peers is None:
        yield from (NamedPorts(_ANY_POD, port.name or "", port.protocol) for port in names)
        return
    for peer in rule.peers:
        match peer:
            case PodPeer(selector):
                yield Pods(selector)
                yield from (NamedPorts(selector, port.name or "", port.protocol) for port in names)
            case NodePeer(selector):
                yield Nodes(selector)
            case CidrPeer(_, excepts) if excepts:
                yield from (block for block, _ in _cidr_terms(peer))
    if plain := _plain_cidrs(rule.peers):
        yield plain


def asked_names(policy: ClusterPolicy) -> frozenset[tuple[str, int | None]]:
    """Return the names (and protocols, None for any) of subject ports that the policy's ingress rules ask for."""
    rules = policy.rules.get(Direction.INGRESS, ())
    return frozenset((port.name, port.protocol) for rule in rules for port in rule.ports or () if port.name is not None)


def port_names(asked: Iterable[tuple[str, int | None]], ports: Sequence[ContainerPort]) -> PortNames:
    """Return what a pod's containers answer to the names asked for: protocols and numbers, sorted; several if they disagree."""
    return {
        (name, protocol): tuple(
            sorted({(port.protocol, port.port) for port in ports if port.name == name and protocol in (None, port.protocol)})
        )
        for name, protocol in sorted(asked, key=lambda item: (item[0], item[1] or 0))
    }


def lower(
    policy: ClusterPolicy, direction: Direction, *, sets: PeerSets, names: PortNames, ids: RuleIds, capabilities: Capabilities
) -> tuple[Policy, tuple[str, ...]]:
    """Return the IR policy of one object in one direction, and what the backend cannot do of it.

    :param sets: holds everything `wanted_by` yields for the policy
    :param names: the subject's named ports, as `port_names` gives them
    :param ids: holds the name of every rule's origin
    """
    rules: list[Rule] = []
    problems: list[str] = []
    for index, rule in enumerate(policy.rules.get(direction, ())):
        origin = origin_of(policy, direction, index)
        rule_id = ids[str(origin)]
        for match in _matches(rule, direction, sets, names):
            lowered = Rule(id=rule_id, action=rule.action, match=match, origin=origin)
            if missing := required_features(lowered) - capabilities.supported:
                problems += [f"{origin}: {feature}: {capabilities.reason(feature)}" for feature in sorted(missing)]
                if rule.action in (Action.ALLOW, Action.LOG):
                    continue
                lowered = replace(lowered, action=Action.DENY, match=ANY)
            rules.append(lowered)
    content = tuple(rules)
    policy_id = PolicyId(digest(str(policy.key), direction, repr(content)))
    return Policy(id=policy_id, direction=direction, rules=content), tuple(dict.fromkeys(problems))


def _matches(rule: PolicyRule, direction: Direction, sets: PeerSets, names: PortNames) -> Iterator[Match]:
    """Yield the matches whose union is what the API rule means."""
    alternatives = _alternatives(rule.peers, sets)
    if rule.ports is None:
        for peer in alternatives:
            yield Match(family=peer.family, peer=peer.terms)
        return
    numbered = [port for port in rule.ports if port.name is None]
    named = [port for port in rule.ports if port.name is not None]
    if direction is Direction.INGRESS:
        for port in named:
            for protocol, number in names[port.name or "", port.protocol]:
                numbered.append(PortMatch(protocol=protocol, first=number, last=number))
    for ports in _group(numbered):
        for peer in alternatives:
            yield replace(ports, family=peer.family, peer=peer.terms)
    if direction is Direction.EGRESS:
        yield from _named_egress(rule, named, sets)


def _named_egress(rule: PolicyRule, named: Sequence[PortMatch], sets: PeerSets) -> Iterator[Match]:
    """Named ports of peers: a set for each number; only pods have names, so blocks and nodes never match."""
    selectors = [_ANY_POD] if rule.peers is None else [peer.selector for peer in rule.peers if isinstance(peer, PodPeer)]
    by_number: dict[tuple[int, int], set[SetId]] = {}
    for port in named:
        for selector in selectors:
            for part, set_id in sets.parts(NamedPorts(selector, port.name or "", port.protocol)):
                if part is not None:
                    by_number.setdefault(part, set()).add(set_id)
    for (protocol, number), ids in sorted(by_number.items()):
        yield Match(protocol=protocol, ports=(PortRange(number, number),), peer=(PeerTerm(tuple(sorted(ids))),))


def _group(ports: Iterable[PortMatch]) -> Iterator[Match]:
    """Yield one match for each protocol with all its ports; a protocol with all ports needs no others."""
    ranges: dict[int | None, set[PortRange] | None] = {}
    icmp: dict[int | None, set[IcmpType]] = {}
    for port in ports:
        if port.icmp is not None:
            icmp.setdefault(port.protocol, set()).add(port.icmp)
        elif port.first is None:
            ranges[port.protocol] = None
        else:
            known = ranges.setdefault(port.protocol, set())
            if known is not None:
                known.add(PortRange(port.first, port.last if port.last is not None else port.first))
    for protocol in sorted(ranges, key=lambda number: -1 if number is None else number):
        yield Match(protocol=protocol, ports=tuple(sorted(ranges[protocol] or ())))
    for protocol, types in icmp.items():
        if protocol not in ranges:
            yield Match(protocol=protocol, icmp=tuple(sorted(types, key=lambda icmp: (icmp.type, -1 if icmp.code is None else icmp.code))))


def _alternatives(peers: tuple[Peer, ...] | None, sets: PeerSets) -> list[_Alternative]:
    """Return the ways in which a peer can match; none at all for an empty list, which means nobody."""
    if peers is None:
        return [_Alternative()]
    plain: set[SetId] = set()
    alternatives = []
    for peer in peers:
        match peer:
            case PodPeer(selector):
                plain.add(_single(sets, Pods(selector)))
            case NodePeer(selector):
                plain.add(_single(sets, Nodes(selector)))
            case CidrPeer(cidr, excepts) if excepts or not cidr.length:
                terms = tuple(PeerTerm((_single(sets, block),), negated) for block, negated in _cidr_terms(peer))
                alternatives.append(_Alternative(terms, None if cidr.length else Family(cidr.family)))
    if block := _plain_cidrs(peers):
        plain.add(_single(sets, block))
    if plain:
        alternatives.insert(0, _Alternative((PeerTerm(tuple(sorted(plain))),)))
    return list(dict.fromkeys(alternatives))


def _cidr_terms(peer: CidrPeer) -> Iterator[tuple[Cidrs, bool]]:
    """Yield the blocks to be in and, with True, not to be in. The block of all addresses is a family, not a set."""
    if peer.cidr.length:
        yield Cidrs((peer.cidr,)), False
    if peer.excepts:
        yield Cidrs(tuple(sorted(set(peer.excepts)))), True


def _plain_cidrs(peers: Iterable[Peer]) -> Cidrs | None:
    """Return all blocks without ``except`` as one set; blocks of all addresses are left to the family."""
    blocks = {peer.cidr for peer in peers if isinstance(peer, CidrPeer) and not peer.excepts and peer.cidr.length}
    return Cidrs(tuple(sorted(blocks))) if blocks else None


def _single(sets: PeerSets, wanted: Wanted) -> SetId:
    return next(set_id for _, set_id in sets.parts(wanted))
