"""policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy and BaselineAdminNetworkPolicy, translated into the cluster model.

They came before ClusterNetworkPolicy, and both may be there at once. They share its tiers: in the admin tier the policies of
both kinds are taken by priority, then by name; in the baseline tier the one BaselineAdminNetworkPolicy, which has no priority,
comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from polyplane.cluster.dialects.crd import number, one_or_cannot, required
from polyplane.cluster.dialects.tiers import ADMIN, BASELINE, MAX_PRIORITY, Grammar, translate
from polyplane.cluster.fields import Field, shown
from polyplane.cluster.metadata import read_object
from polyplane.cluster.model import ClusterPolicy, Dialect, ObjectKey, PortMatch
from polyplane.hookspecs import hookimpl
from polyplane.ir.program import SCTP, TCP, UDP, Action

API_VERSION: Final = "policy.networking.k8s.io/v1alpha1"
ADMIN_KIND: Final = "AdminNetworkPolicy"
BASELINE_KIND: Final = "BaselineAdminNetworkPolicy"

_PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
#: The name that the one BaselineAdminNetworkPolicy must have.
_ONLY_NAME: Final = "default"


def parse_admin_network_policy(raw: Mapping[str, Any]) -> ClusterPolicy:
    """Check one AdminNetworkPolicy as its API server would, and translate it.

    :raises polyplane.errors.InvalidObject: for what the API server would reject
    """
    identity, spec = read_object(raw, api_version=API_VERSION, kind=ADMIN_KIND, namespaced=False)
    members = required(spec, "write a spec with priority and subject").members(("priority", "subject", "ingress", "egress"))
    order = (number(members["priority"], 0, MAX_PRIORITY),)
    return translate(ObjectKey(API_VERSION, ADMIN_KIND, "", identity.name), ADMIN, order, members, _ADMIN)


def parse_baseline_admin_network_policy(raw: Mapping[str, Any]) -> ClusterPolicy:
    """Check the BaselineAdminNetworkPolicy as its API server would, and translate it.

    :raises polyplane.errors.InvalidObject: for what the API server would reject
    """
    identity, spec = read_object(raw, api_version=API_VERSION, kind=BASELINE_KIND, namespaced=False)
    if identity.name != _ONLY_NAME:
        problem = f"{shown(identity.name)} is not possible, there is only one object of this kind; call it {_ONLY_NAME}"
        raise Field(identity.name, "metadata.name", spec.report).invalid(problem)
    members = required(spec, "write a spec with a subject").members(("subject", "ingress", "egress"))
    return translate(ObjectKey(API_VERSION, BASELINE_KIND, "", identity.name), BASELINE, (MAX_PRIORITY + 1,), members, _BASELINE)


def _port(field: Field) -> PortMatch | None:
    """Read one item of ``ports``."""
    match one_or_cannot(field, ("portNumber", "portRange", "namedPort")):
        case None:
            return None
        case "namedPort", member:
            return PortMatch(protocol=None, name=member.text())
        case "portNumber", member:
            parts = member.members(("protocol", "port"))
            first = last = number(parts["port"], 1, 65535)
        case _, member:
            parts = member.members(("protocol", "start", "end"))
            first, last = number(parts["start"], 1, 65535), number(parts["end"], 1, 65535)
    protocol = _PROTOCOLS.get(parts["protocol"].text() if parts["protocol"].present else "TCP")
    # The schema of this version lets both of these through.
    if protocol is None:
        parts["protocol"].cannot(f"{shown(parts['protocol'].value)} has no ports that are known here; use TCP, UDP or SCTP")
        return None
    if first > last:
        member.cannot(f"{first} to {last} holds no port; write the lower one as start")
        return None
    return PortMatch(protocol=protocol, first=first, last=last)


_ADMIN: Final = Grammar(
    actions={"Allow": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS},
    ports="ports",
    read_port=_port,
    most=100,
    namespace_required=True,
)
_BASELINE: Final = Grammar(
    actions={"Allow": Action.ALLOW, "Deny": Action.DENY},
    ports="ports",
    read_port=_port,
    most=100,
    domain_names=False,
    namespace_required=True,
)

#: The dialects as the store uses them.
ADMIN_NETWORK_POLICY: Final = Dialect(
    api_version=API_VERSION, kind=ADMIN_KIND, namespaced=False, tiers=(ADMIN,), parse=parse_admin_network_policy
)
BASELINE_ADMIN_NETWORK_POLICY: Final = Dialect(
    api_version=API_VERSION, kind=BASELINE_KIND, namespaced=False, tiers=(BASELINE,), parse=parse_baseline_admin_network_policy
)


class AdminNetworkPolicyDialect:
    """The plugin that announces both kinds."""

    @hookimpl
    def polyplane_dialects(self) -> Iterable[Dialect]:
        """Return the two policy APIs of this plugin."""
        return (ADMIN_NETWORK_POLICY, BASELINE_ADMIN_NETWORK_POLICY)
