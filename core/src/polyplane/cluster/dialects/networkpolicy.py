"""networking.k8s.io/v1 NetworkPolicy, translated into the cluster model.

A NetworkPolicy only ever allows. It isolates the pods it selects in each direction of its ``policyTypes``; what no rule of any
such policy allows is denied at the end of the tier. Rules of a direction outside ``policyTypes`` have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from polyplane.cluster.dialects.networkpolicy_spec import PeerSpec, PortSpec, RuleSpec, parse_spec
from polyplane.cluster.metadata import read_object
from polyplane.cluster.model import (
    EVERYTHING,
    CidrPeer,
    ClusterPolicy,
    Dialect,
    ObjectKey,
    Peer,
    PodPeer,
    PodSelector,
    PolicyRule,
    PortMatch,
    TierSpec,
)
from polyplane.hookspecs import hookimpl
from polyplane.ir.program import Action, TierEnd

API_VERSION: Final = "networking.k8s.io/v1"
KIND: Final = "NetworkPolicy"

#: Far from both ends, so that tiers of administrators fit before it and baseline tiers after it.
TIER: Final = TierSpec(name="networkpolicy", position=1_000_000, end=TierEnd.DENY, exempts_self=True)


def parse_network_policy(raw: Mapping[str, Any]) -> ClusterPolicy:
    """Check one NetworkPolicy as its API server would, and translate it.

    :raises polyplane.errors.InvalidObject: for what the API server would reject
    """
    identity, spec_field = read_object(raw, api_version=API_VERSION, kind=KIND, namespaced=True)
    spec = parse_spec(spec_field)
    return ClusterPolicy(
        key=ObjectKey(API_VERSION, KIND, identity.namespace, identity.name),
        tier=TIER,
        subject=PodSelector(namespace=identity.namespace, pods=spec.pod_selector),
        rules={
            direction: tuple(_rule(rule, identity.namespace) for rule in rules)
            for direction, rules in spec.rules.items()
            if direction in spec.policy_types
        },
        isolates=spec.policy_types,
        warnings=tuple(spec_field.report.warnings),
    )


def _rule(rule: RuleSpec, namespace: str) -> PolicyRule:
    return PolicyRule(
        action=Action.ALLOW,
        peers=tuple(_peer(peer, namespace) for peer in rule.peers) or None,
        ports=tuple(_port(port) for port in rule.ports) or None,
    )


def _peer(peer: PeerSpec, namespace: str) -> Peer:
    if peer.ip_block is not None:
        return CidrPeer(peer.ip_block.cidr, peer.ip_block.excepts)
    pods = EVERYTHING if peer.pod_selector is None else peer.pod_selector
    if peer.namespace_selector is None:
        return PodPeer(PodSelector(namespace=namespace, pods=pods))
    return PodPeer(PodSelector(namespaces=peer.namespace_selector, pods=pods))


def _port(port: PortSpec) -> PortMatch:
    if isinstance(port.port, str):
        return PortMatch(protocol=port.protocol, name=port.port)
    last = port.port if port.end_port is None else port.end_port
    return PortMatch(protocol=port.protocol, first=port.port, last=last)


#: The dialect as the store uses it.
NETWORK_POLICY: Final = Dialect(api_version=API_VERSION, kind=KIND, namespaced=True, tiers=(TIER,), parse=parse_network_policy)


class NetworkPolicyDialect:
    """The plugin that announces NetworkPolicy."""

    @hookimpl
    def polyplane_dialects(self) -> Iterable[Dialect]:
        """Return the one policy API of this plugin."""
        return (NETWORK_POLICY,)
