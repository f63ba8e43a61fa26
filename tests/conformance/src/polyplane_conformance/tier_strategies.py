"""Hypothesis strategies in which tiers decide: few pods that nearly every policy means, so that each tier hears what the one before passes."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from polyplane_conformance.actions import Action, ApplyClusterPolicy, ApplyPolicy, DeleteClusterPolicy, LabelNode, PodSpec
from polyplane_conformance.cluster_strategies import STRANGE_PEERS
from polyplane_conformance.scenario import Scenario, Step

_NAMESPACES: Final = {"x": {"ns": "x"}, "y": {"ns": "y"}}
_PODS: Final = ("x/a", "x/b", "y/a")
_ALL: Final[dict[str, Any]] = {"namespaces": {}}
#: Subjects and peers.
_WHO: Final = st.sampled_from(
    (_ALL, _ALL, {"namespaces": {"matchLabels": {"ns": "x"}}}, {"pods": {"podSelector": {"matchLabels": {"pod": "a"}}}})
)
_PEERS: Final[tuple[list[dict[str, Any]], ...]] = ([], [{}], [{"podSelector": {}}], [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}])
_OBJECTS: Final = (
    *(("ClusterNetworkPolicy", name, tier) for name, tier in (("a", "Admin"), ("b", "Admin"), ("c", "Baseline"), ("d", "Baseline"))),
    ("AdminNetworkPolicy", "a", ""),
    ("BaselineAdminNetworkPolicy", "default", ""),
)


@st.composite
def _policies(draw: st.DrawFn) -> Action:
    """A NetworkPolicy that isolates all or one pod of a namespace in some directions, and opens to few."""
    types = draw(st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])))
    spec: dict[str, Any] = {"podSelector": draw(st.sampled_from(({}, {"matchLabels": {"pod": "a"}}))), "policyTypes": types}
    for kind in types:
        peers = draw(st.sampled_from(_PEERS))
        spec[kind.lower()] = [{"from" if kind == "Ingress" else "to": peers}] if peers else []
    return ApplyPolicy(policy=f"{draw(st.sampled_from(sorted(_NAMESPACES)))}/p{draw(st.integers(0, 1))}", spec=spec)


@st.composite
def _cluster_policies(draw: st.DrawFn, places: st.SearchStrategy[tuple[str, str, str]]) -> ApplyClusterPolicy:
    kind, name, tier = draw(places)
    spec: dict[str, Any] = {"subject": _whole(kind, draw(_WHO))}
    if tier:
        spec["tier"] = tier
    if kind != "BaselineAdminNetworkPolicy":
        spec["priority"] = draw(st.integers(0, 2))
    for direction in draw(st.sampled_from((["ingress"], ["egress"], ["ingress", "egress"]))):
        spec[direction] = draw(st.lists(_rules(kind, direction), min_size=1, max_size=2))
    return ApplyClusterPolicy(kind=kind, name=name, spec=spec)


@st.composite
def _rules(draw: st.DrawFn, kind: str, direction: str) -> dict[str, Any]:
    new = kind == "ClusterNetworkPolicy"
    words = ["Deny", "Accept" if new else "Allow", *(["Pass", "Pass"] if kind != "BaselineAdminNetworkPolicy" else [])]
    rule: dict[str, Any] = {"action": draw(st.sampled_from(words))}
    peers = rule["from" if direction == "ingress" else "to"] = [_whole(kind, draw(_WHO))]
    more = draw(st.sampled_from(("nothing", "nothing", "strange", "nodes")))
    if more == "strange":
        peers.append(draw(st.sampled_from(STRANGE_PEERS)))
    elif more == "nodes" and direction == "egress":
        peers[:] = [{"nodes": {"matchLabels": {"edge": "yes"}}}]
    if draw(st.integers(0, 3)) == 0:
        port = draw(st.sampled_from((80, 81)))
        rule["protocols" if new else "ports"] = [{"tcp": {"destinationPort": {"number": port}}} if new else {"portNumber": {"port": port}}]
    return rule


def _whole(kind: str, who: dict[str, Any]) -> dict[str, Any]:
    """The older kinds want both selectors."""
    if kind == "ClusterNetworkPolicy" or "pods" not in who:
        return who
    return {"pods": {"namespaceSelector": {}, **who["pods"]}}


@st.composite
def tiered_scenarios(draw: st.DrawFn) -> Scenario:
    """Three pods on one node, policies in all tiers at once, then some changes of them."""
    places = draw(st.lists(st.sampled_from(_OBJECTS), min_size=2, max_size=5, unique=True))
    first: list[Action] = [LabelNode(name="remote-node", set={"edge": "yes"})]
    first += [draw(_cluster_policies(st.just(place))) for place in places]
    first += draw(st.lists(_policies(), max_size=2))
    labels = st.sampled_from((LabelNode(name="remote-node", set={"edge": "yes"}), LabelNode(name="remote-node", drop=("edge",))))
    change = st.one_of(
        labels,
        _cluster_policies(st.sampled_from(places)),
        _policies(),
        st.sampled_from(places).map(lambda place: DeleteClusterPolicy(kind=place[0], name=place[1])),
    )
    later = [draw(change) for _ in range(draw(st.integers(1, 3)))]
    return Scenario(
        name="random/tiers",
        description="a random cluster with policies in all tiers",
        namespaces=_NAMESPACES,
        pods={pod: PodSpec(labels={"pod": pod[-1]}) for pod in _PODS},
        steps=(Step(actions=tuple(first), expectations=()), *(Step(actions=(action,), expectations=()) for action in later)),
    )
