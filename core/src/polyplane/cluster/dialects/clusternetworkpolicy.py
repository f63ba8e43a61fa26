"""policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy, translated into the cluster model.

Rules are taken in order and the first that matches decides: Accept and Deny end the matter in their direction, Pass leaves the
tier. Policies of a tier are taken by ``priority``, equal ones by name. All fields of the standard and the experimental channel
are read; ``domainNames`` cannot be done and fails closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from polyplane.cluster.dialects.crd import members_or_cannot, number, one_or_cannot, required, word
from polyplane.cluster.dialects.tiers import ADMIN, BASELINE, MAX_PRIORITY, Grammar, translate
from polyplane.cluster.fields import Field
from polyplane.cluster.metadata import read_object
from polyplane.cluster.model import ClusterPolicy, Dialect, ObjectKey, PortMatch
from polyplane.hookspecs import hookimpl
from polyplane.ir.program import SCTP, TCP, UDP, Action

API_VERSION: Final = "policy.networking.k8s.io/v1alpha2"
KIND: Final = "ClusterNetworkPolicy"

_SPEC: Final = ("tier", "priority", "subject", "ingress", "egress")
_TIERS: Final = {"Admin": ADMIN, "Baseline": BASELINE}
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
_NAMED: Final = "destinationNamedPort"


def parse_cluster_network_policy(raw: Mapping[str, Any]) -> ClusterPolicy:
    """Check one ClusterNetworkPolicy as its API server would, and translate it.

    :raises polyplane.errors.InvalidObject: for what the API server would reject
    """
    identity, spec = read_object(raw, api_version=API_VERSION, kind=KIND, namespaced=False)
    members = required(spec, "write a spec with tier, priority and subject").members(_SPEC)
    tier = _TIERS[word(members["tier"], tuple(_TIERS))]
    order = (number(members["priority"], 0, MAX_PRIORITY),)
    return translate(ObjectKey(API_VERSION, KIND, "", identity.name), tier, order, members, _GRAMMAR)


def _protocol(field: Field) -> PortMatch | None:
    """Read one item of ``protocols``."""
    match one_or_cannot(field, (*_PROTOCOLS, _NAMED)):
        case None:
            return None
        case kind, member if kind == _NAMED:
            return PortMatch(protocol=None, name=member.text())
        case kind, member:
            return _destination(member, _PROTOCOLS[kind])


def _destination(field: Field, protocol: int) -> PortMatch | None:
    if field.value == {}:
        raise field.invalid("is empty; write destinationPort, with range 1 to 65535 for all ports")
    members = members_or_cannot(field, ("destinationPort",))
    found = None if members is None else one_or_cannot(members["destinationPort"], ("number", "range"))
    match found:
        case None:
            return None
        case "number", member:
            port = number(member, 1, 65535)
            return PortMatch(protocol=protocol, first=port, last=port)
        case _, member:
            ends = member.members(("start", "end"))
            first, last = number(ends["start"], 1, 65535), number(ends["end"], 1, 65535)
            if first >= last:
                raise member.invalid(f"start {first} must be less than end {last}; for a single port write number")
            return PortMatch(protocol=protocol, first=first, last=last)


_GRAMMAR: Final = Grammar(
    actions={"Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS}, ports="protocols", read_port=_protocol, most=25
)

#: The dialect as the store uses it.
CLUSTER_NETWORK_POLICY: Final = Dialect(
    api_version=API_VERSION, kind=KIND, namespaced=False, tiers=(ADMIN, BASELINE), parse=parse_cluster_network_policy
)


class ClusterNetworkPolicyDialect:
    """The plugin that announces ClusterNetworkPolicy."""

    @hookimpl
    def polyplane_dialects(self) -> Iterable[Dialect]:
        """Return the one policy API of this plugin."""
        return (CLUSTER_NETWORK_POLICY,)
