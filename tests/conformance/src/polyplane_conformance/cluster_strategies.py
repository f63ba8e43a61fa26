"""Hypothesis strategies for the policies of cluster administrators: specs of all three kinds, some of which nobody can read in full."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from polyplane_conformance.actions import Action, ApplyClusterPolicy, DeleteClusterPolicy

#: Kind, and names that its objects have; few, so that they meet.
_OBJECTS: Final = (
    ("ClusterNetworkPolicy", "p0"),
    ("ClusterNetworkPolicy", "p1"),
    ("ClusterNetworkPolicy", "p2"),
    ("AdminNetworkPolicy", "p1"),
    ("BaselineAdminNetworkPolicy", "default"),
)
_NETWORKS: Final = (
    "0.0.0.0/0",
    "10.244.0.0/16",
    "10.244.1.77/24",
    "10.244.2.10/32",
    "203.0.113.0/24",
    "172.30.0.0/31",
    "::/0",
    "fd00:10:244:1::/64",
    "2001:db8::9/128",
)
#: Names that ports have, and one that none has.
PORT_NAMES: Final = ("web", "dns", "serve-80-tcp", "nowhere")
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
#: What a newer API might have, and what a schema lets through.
STRANGE_PEERS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"serviceAccounts": {}},
    {"namespaces": {}, "zones": ["a"]},
    {"pods": {"podSelector": {}, "owner": "me"}},
    {"namespaces": {"matchExpressions": [{"key": "ns", "operator": "Near"}]}},
)
_STRANGE_PROTOCOLS: Final[tuple[dict[str, Any], ...]] = ({}, {"icmp": {"type": 8}}, {"tcp": {"flags": ["syn"]}})
_STRANGE_PORTS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"service": "web"},
    {"portNumber": {"protocol": "ICMP", "port": 80}},
    {"portRange": {"start": 81, "end": 80}},
)

Selectors = SearchStrategy[dict[str, Any]]


@st.composite
def cluster_actions(draw: st.DrawFn, selectors: Selectors, subjects: Selectors | None = None) -> Action:
    """Apply a policy of some kind, or delete one, if it is there; ``subjects`` selects the namespaces of its subjects."""
    kind, name = draw(st.sampled_from(_OBJECTS))
    if draw(st.integers(0, 4)) == 0:
        return DeleteClusterPolicy(kind=kind, name=name)
    return ApplyClusterPolicy(kind=kind, name=name, spec=draw(cluster_specs(kind, selectors, subjects)))


@st.composite
def cluster_specs(draw: st.DrawFn, kind: str, selectors: Selectors, subjects: Selectors | None = None) -> dict[str, Any]:
    """Specs of a kind that an API server accepts; about one rule in ten has a part that is not understood."""
    spec: dict[str, Any] = {"subject": draw(_pods(selectors, subjects))}
    if kind == "ClusterNetworkPolicy":
        spec["tier"] = draw(st.sampled_from(("Admin", "Admin", "Baseline")))
    if kind != "BaselineAdminNetworkPolicy":
        spec["priority"] = draw(st.sampled_from((0, 1, 1, 1000)))
    for direction in ("ingress", "egress"):
        if draw(st.integers(0, 2)):
            spec[direction] = draw(st.lists(_rules(kind, direction, selectors), max_size=3))
    return spec


@st.composite
def _pods(draw: st.DrawFn, selectors: Selectors, namespaces: Selectors | None = None) -> dict[str, Any]:
    of_namespaces = selectors if namespaces is None else namespaces
    if draw(st.booleans()):
        return {"namespaces": draw(of_namespaces)}
    return {"pods": {"namespaceSelector": draw(of_namespaces), "podSelector": draw(selectors)}}


@st.composite
def _rules(draw: st.DrawFn, kind: str, direction: str, selectors: Selectors) -> dict[str, Any]:
    new = kind == "ClusterNetworkPolicy"
    strange = draw(st.integers(0, 9)) == 0
    words = ["Deny", "Accept" if new else "Allow", *(["Pass"] if kind != "BaselineAdminNetworkPolicy" else [])]
    peers = draw(st.lists(_peers(direction, selectors), min_size=1, max_size=3))
    rule: dict[str, Any] = {"action": draw(st.sampled_from(words)), "to" if direction == "egress" else "from": peers}
    if draw(st.booleans()):
        # Peers that have no containers have no names for their ports either; the schema knows.
        names = all("networks" not in peer and "nodes" not in peer for peer in peers)
        rule["protocols" if new else "ports"] = draw(
            st.lists(_protocols(names=names) if new else _ports(names=names), min_size=1, max_size=3)
        )
    if strange and draw(st.booleans()):
        peers.append(draw(st.sampled_from(STRANGE_PEERS)))
    elif strange:
        rule.setdefault("protocols" if new else "ports", []).append(draw(st.sampled_from(_STRANGE_PROTOCOLS if new else _STRANGE_PORTS)))
    return rule


@st.composite
def _peers(draw: st.DrawFn, direction: str, selectors: Selectors) -> dict[str, Any]:
    match draw(st.sampled_from(("pods", "pods", "networks", "nodes"))) if direction == "egress" else "pods":
        case "networks":
            return {"networks": draw(st.lists(st.sampled_from(_NETWORKS), min_size=1, max_size=3, unique=True))}
        case "nodes":
            key, values = draw(st.sampled_from((("kubernetes.io/hostname", ("node-1", "node-2")), ("zone", ("a", "b")))))
            expressions = st.builds(
                lambda operator, some: {"key": key, "operator": operator, "values": some},
                st.sampled_from(("In", "NotIn")),
                st.lists(st.sampled_from(values), min_size=1),
            )
            return {"nodes": {"matchExpressions": draw(st.lists(expressions, max_size=1))}}
        case _:
            return draw(_pods(selectors))


_NUMBERS: Final = st.sampled_from((1, 79, 80, 81, 8080, 65535))


@st.composite
def _ranges(draw: st.DrawFn) -> dict[str, int]:
    return {"start": draw(st.sampled_from((1, 79, 80))), "end": draw(st.sampled_from((81, 8080, 65535)))}


@st.composite
def _protocols(draw: st.DrawFn, *, names: bool) -> dict[str, Any]:
    if names and draw(st.booleans()):
        return {"destinationNamedPort": draw(st.sampled_from(PORT_NAMES))}
    port = {"number": draw(_NUMBERS)} if draw(st.booleans()) else {"range": draw(_ranges())}
    return {draw(st.sampled_from(PROTOCOLS)).lower(): {"destinationPort": port}}


@st.composite
def _ports(draw: st.DrawFn, *, names: bool) -> dict[str, Any]:
    if names and draw(st.booleans()):
        return {"namedPort": draw(st.sampled_from(PORT_NAMES))}
    protocol = {"protocol": draw(st.sampled_from(PROTOCOLS))} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        return {"portNumber": {**protocol, "port": draw(_NUMBERS)}}
    return {"portRange": {**protocol, **draw(_ranges())}}
