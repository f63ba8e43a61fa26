"""What the policy APIs for cluster administrators have in common: two tiers, whom a policy is for, peers, and failing closed.

ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) and the AdminNetworkPolicy and BaselineAdminNetworkPolicy before it
(v1alpha1) share the two tiers. Neither isolates: what no rule matches goes on to the next tier. Traffic from a pod to itself
through a service is subject to them, as the API says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polyplane.cluster.addresses import parse_prefix, written
from polyplane.cluster.dialects.crd import items, members_or_cannot, name, one_or_cannot, required, selector_or_cannot, word
from polyplane.cluster.fields import Field, shown
from polyplane.cluster.model import (
    CidrPeer,
    ClusterPolicy,
    NodePeer,
    ObjectKey,
    Peer,
    PodPeer,
    PodSelector,
    PolicyRule,
    PortMatch,
    TierSpec,
)
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Action, Direction

#: Far apart, so that tiers of other APIs fit between; NetworkPolicy's is at 1,000,000.
ADMIN: Final = TierSpec(name="admin", position=1_000)
BASELINE: Final = TierSpec(name="baseline", position=10_000_000)

#: Highest value of ``priority``; lower ones come first.
MAX_PRIORITY: Final = 1_000

_INGRESS_PEERS: Final = ("namespaces", "pods")
_EGRESS_PEERS: Final = (*_INGRESS_PEERS, "nodes", "networks", "domainNames")
_PODS: Final = ("namespaceSelector", "podSelector")
#: Members of ``networks`` and ``domainNames``, and the longest text of a network.
_MANY: Final = 25
_LONGEST_NETWORK: Final = 43
#: A name of a host, perhaps with ``*.`` before it and a dot at the end.
_DOMAIN: Final = re.compile(r"(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How one kind writes its rules.

    ``actions`` are the words it has; ``ports`` is the member that says which ports a rule is about, and ``read_port`` reads
    one item of it, None for one that cannot be done; ``most`` bounds rules, peers and ports each. ``namespace_required``:
    ``pods`` must have a ``namespaceSelector``.
    """

    actions: Mapping[str, Action]
    ports: str
    read_port: Callable[[Field], PortMatch | None]
    most: int
    domain_names: bool = True
    namespace_required: bool = False


def translate(key: ObjectKey, tier: TierSpec, order: tuple[int, ...], members: Mapping[str, Field], grammar: Grammar) -> ClusterPolicy:
    """Read ``subject``, ``ingress`` and ``egress`` of a spec's members, and make the policy of it.

    :raises polyplane.errors.InvalidObject: for what the API server would reject
    """
    report = members["subject"].report
    subject = _subject(members["subject"], grammar)
    rules = {direction: rules for direction in Direction if (rules := _rules(members[direction.value], direction, grammar))}
    return ClusterPolicy(
        key=key,
        tier=tier,
        order=order,
        subject=subject,
        rules=rules,
        warnings=tuple(report.warnings),
        unsupported=tuple(report.unsupported),
    )


def _subject(field: Field, grammar: Grammar) -> PodSelector:
    """Read whom a policy is for. What cannot be understood is refused here, since nobody could say to whom it should be closed."""
    noted = len(required(field, "write namespaces or pods").report.unsupported)
    found = one_or_cannot(field, _INGRESS_PEERS)
    selector = None if found is None else _pods(*found, grammar)
    if selector is None:
        path, _, problem = field.report.unsupported[noted].partition(": ")
        raise Field(None, path, field.report).invalid(problem)
    return selector


def _rules(field: Field, direction: Direction, grammar: Grammar) -> tuple[PolicyRule, ...]:
    return tuple(_rule(item, direction, grammar) for item in items(field, least=0, most=grammar.most))


def _rule(field: Field, direction: Direction, grammar: Grammar) -> PolicyRule:
    side = "from" if direction is Direction.INGRESS else "to"
    members = field.members(("name", "action", side, grammar.ports))
    name(members["name"])
    action = grammar.actions[word(members["action"], tuple(grammar.actions))]
    peers = [_peer(item, direction, grammar) for item in items(members[side], least=1, most=grammar.most)]
    ports = None
    if members[grammar.ports].present:
        ports = [grammar.read_port(item) for item in items(members[grammar.ports], least=1, most=grammar.most)]
    if direction is Direction.EGRESS:
        _check_names(members[side], ports or ())
    if any(part is None for part in (*peers, *(ports or ()))):
        # As the API says of peers: a rule that allows matches nothing, any other denies everything.
        return PolicyRule(action=Action.ALLOW, peers=()) if action is Action.ALLOW else PolicyRule(action=Action.DENY)
    return PolicyRule(
        action=action,
        peers=tuple(peer for several in peers for peer in several or ()),
        ports=None if ports is None else tuple(port for port in ports if port is not None),
    )


def _check_names(peers: Field, ports: Sequence[PortMatch | None]) -> None:
    if not any(port is not None and port.name is not None for port in ports):
        return
    for item in peers.items():
        for nameless in ("networks", "nodes", "domainNames"):
            if isinstance(item.value, Mapping) and item.value.get(nameless) is not None:
                raise item.invalid(f"{nameless} have no named ports; write the number of the port, or pods or namespaces as the peer")


def _peer(field: Field, direction: Direction, grammar: Grammar) -> tuple[Peer, ...] | None:
    """Read one item of ``from`` or ``to``; None for one that cannot be done."""
    known = _INGRESS_PEERS if direction is Direction.INGRESS else _EGRESS_PEERS[: None if grammar.domain_names else -1]
    found = one_or_cannot(field, known)
    match found:
        case None:
            return None
        case "networks", networks:
            return _networks(networks)
        case "nodes", nodes:
            selector = selector_or_cannot(nodes)
            return None if selector is None else (NodePeer(selector),)
        case "domainNames", names:
            _check_domain_names(names)
            names.cannot("domain names cannot be resolved here; write networks instead")
            return None
        case kind, member:
            pods = _pods(kind, member, grammar)
            return None if pods is None else (PodPeer(pods),)


def _pods(kind: str, field: Field, grammar: Grammar) -> PodSelector | None:
    """Read ``namespaces`` or ``pods`` of a subject or peer."""
    if kind == "namespaces":
        namespaces = selector_or_cannot(field)
        return None if namespaces is None else PodSelector(namespaces=namespaces)
    members = members_or_cannot(field, _PODS)
    if members is None:
        return None
    remedy = "write {} to select all"
    required(members["podSelector"], remedy)
    if grammar.namespace_required:
        required(members["namespaceSelector"], remedy)
    namespaces, pods = (selector_or_cannot(members[one]) for one in _PODS)
    return None if namespaces is None or pods is None else PodSelector(namespaces=namespaces, pods=pods)


def _networks(field: Field) -> tuple[CidrPeer, ...]:
    return tuple(CidrPeer(_network(item)) for item in _distinct(field))


def _network(field: Field) -> Cidr:
    """Read a prefix as CEL's ``isCIDR`` does: strictly, but with any host bits."""
    text = field.text()
    if len(text) > _LONGEST_NETWORK:
        raise field.invalid(f"is {len(text)} characters long; a prefix has at most {_LONGEST_NETWORK}")
    parsed = parse_prefix(text)
    if parsed is None:
        raise field.invalid(f"{shown(text)} is not an IP prefix; write one like 10.0.0.0/8 or fd00::/8")
    prefix, oddities = parsed
    if strange := [oddity for oddity in oddities if not oddity.startswith("bits beyond")]:
        raise field.invalid(f"{shown(text)} is not a plain IP prefix ({' and '.join(strange)}); write {written(prefix)}")
    if oddities:
        field.warn(f"{shown(text)} means {written(prefix)}: {oddities[0]}; write {written(prefix)}")
    return prefix


def _check_domain_names(field: Field) -> None:
    for item in _distinct(field):
        if not _DOMAIN.fullmatch(item.text()):
            raise item.invalid(f"{shown(item.text())} is not a domain name; write one like www.example.org or *.example.org")


def _distinct(field: Field) -> list[Field]:
    found = items(field, least=1, most=_MANY)
    seen = set()
    for item in found:
        if item.text() in seen:
            raise item.invalid(f"{shown(item.text())} is there already; remove one of the two")
        seen.add(item.text())
    return found
