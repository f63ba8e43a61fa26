"""Hypothesis strategies: specs of NetworkPolicy, and whole scenarios of random clusters, policies of all kinds and changes.

Labels, ports and blocks come from small vocabularies, so that they meet often.
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from polyplane_conformance.actions import (
    Action,
    AddPod,
    ApplyPolicy,
    DeletePolicy,
    FinishPod,
    LabelNamespace,
    LabelNode,
    LabelPod,
    PodSpec,
    RemovePod,
)
from polyplane_conformance.cluster_strategies import PORT_NAMES, PROTOCOLS, cluster_actions
from polyplane_conformance.scenario import Scenario, Step

#: Keys and values of labels: so few that selectors often find somebody.
_VALUES: Final[dict[str, tuple[str, ...]]] = {"pod": ("a", "b", "c"), "tier": ("a", ""), "ns": ("x", "y", "z")}
NAMESPACES: Final = ("x", "y", "z")
_PODS: Final = ("x/a", "x/b", "y/a", "y/b", "z/c")
_CIDRS: Final[dict[str, tuple[str, ...]]] = {
    "0.0.0.0/0": ("0.0.0.0/1", "10.244.1.0/24", "10.244.2.10/32"),
    "10.244.0.0/16": ("10.244.1.0/24", "10.244.1.10/32", "10.244.2.0/31"),
    "10.244.1.10/31": ("10.244.1.11/32",),
    "10.244.2.10/32": (),
    "203.0.113.0/24": ("203.0.113.9/32",),
    "::/0": ("fd00::/8", "fd00:10:244:1::/64"),
    "fd00:10:244:1::/64": ("fd00:10:244:1::a/128",),
    "2001:db8::/32": (),
}


def labels(most: int = 2) -> SearchStrategy[dict[str, str]]:
    """Few labels from a small vocabulary."""
    pairs = [(key, value) for key, values in _VALUES.items() for value in values]
    return st.lists(st.sampled_from(pairs), max_size=most).map(dict)


@st.composite
def selectors(draw: st.DrawFn) -> dict[str, Any]:
    """Label selectors, the empty one among them."""
    selector: dict[str, Any] = {}
    if draw(st.booleans()):
        selector["matchLabels"] = draw(labels(1))
    if not draw(st.integers(0, 2)):
        expressions = []
        for _ in range(draw(st.sampled_from((1, 1, 2)))):
            operator = draw(st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")))
            key = draw(st.sampled_from(sorted(_VALUES)))
            expression: dict[str, Any] = {"key": key, "operator": operator}
            if operator in ("In", "NotIn"):
                expression["values"] = draw(st.lists(st.sampled_from(_VALUES[key]), min_size=1, max_size=3))
            expressions.append(expression)
        selector["matchExpressions"] = expressions
    return selector


@st.composite
def ip_blocks(draw: st.DrawFn) -> dict[str, Any]:
    """Blocks that hold some of the pods, with exceptions that are strictly inside."""
    cidr = draw(st.sampled_from(sorted(_CIDRS)))
    carved = draw(st.lists(st.sampled_from(_CIDRS[cidr]), max_size=3)) if _CIDRS[cidr] else []
    return {"cidr": cidr, **({"except": carved} if carved else {})}


@st.composite
def peers(draw: st.DrawFn) -> dict[str, Any]:
    """Peers of every kind."""
    kind = draw(st.sampled_from(("pods", "namespaces", "both", "block")))
    match kind:
        case "pods":
            return {"podSelector": draw(selectors())}
        case "namespaces":
            return {"namespaceSelector": draw(selectors())}
        case "both":
            return {"podSelector": draw(selectors()), "namespaceSelector": draw(selectors())}
        case _:
            return {"ipBlock": draw(ip_blocks())}


@st.composite
def ports(draw: st.DrawFn) -> dict[str, Any]:
    """Port items: numbers, names, ranges, whole protocols, and nothing at all."""
    item: dict[str, Any] = {}
    if draw(st.booleans()):
        item["protocol"] = draw(st.sampled_from(PROTOCOLS))
    match draw(st.sampled_from(("none", "number", "range", "name"))):
        case "number":
            item["port"] = draw(st.sampled_from((1, 79, 80, 81, 8080, 65535)))
        case "range":
            item["port"] = draw(st.sampled_from((1, 79, 80, 81)))
            item["endPort"] = draw(st.sampled_from((81, 8080, 65535)))
        case "name":
            item["port"] = draw(st.sampled_from(PORT_NAMES))
    return item


@st.composite
def rules(draw: st.DrawFn, side: str) -> dict[str, Any]:
    """Rules of one direction; ``side`` is ``from`` or ``to``."""
    rule: dict[str, Any] = {}
    if draw(st.booleans()):
        rule[side] = draw(st.lists(peers(), max_size=3))
    if draw(st.booleans()):
        rule["ports"] = draw(st.lists(ports(), max_size=3))
    return rule


@st.composite
def policy_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Specs that an API server accepts."""
    spec: dict[str, Any] = {"podSelector": draw(selectors())}
    if draw(st.booleans()):
        spec["policyTypes"] = draw(st.lists(st.sampled_from(("Ingress", "Egress")), max_size=2))
    if draw(st.booleans()):
        spec["ingress"] = draw(st.lists(rules("from"), max_size=2))
    if draw(st.booleans()):
        spec["egress"] = draw(st.lists(rules("to"), max_size=2))
    return spec


@st.composite
def pod_specs(draw: st.DrawFn) -> PodSpec:
    """Pods of either node, with random labels and ports."""
    names = st.sampled_from(("web", "dns", "serve-80-tcp", ""))
    numbers = st.sampled_from(("80/TCP", "81/TCP", "80/UDP", "81/SCTP"))
    container = st.lists(st.builds("{}={}".format, names, numbers).map(lambda text: text.removeprefix("=")), max_size=3, unique=True).map(
        tuple
    )
    return PodSpec(
        labels=draw(labels()),
        containers=tuple(draw(st.lists(container, min_size=1, max_size=2))),
        node=draw(st.sampled_from(("local", "local", "remote"))),
        host_network=draw(st.sampled_from((False, False, False, True))),
        families=draw(st.sampled_from(((4, 6), (4, 6), (4,), (6,)))),
    )


@st.composite
def node_labels(draw: st.DrawFn) -> Action:
    """A node that moves to another zone, or to none."""
    name, zone = draw(st.sampled_from(("node", "remote-node"))), draw(st.sampled_from(("a", "b", "")))
    return LabelNode(name=name, set={"zone": zone}) if zone else LabelNode(name=name, drop=("zone",))


@st.composite
def changes(draw: st.DrawFn) -> Action:
    """One change to a cluster of `scenarios`; pods it names exist or come back."""
    pod = draw(st.sampled_from(_PODS))
    policy = f"{draw(st.sampled_from(NAMESPACES))}/p{draw(st.integers(0, 2))}"
    match kind := draw(
        st.sampled_from(
            (
                "apply",
                "apply",
                "apply",
                "cluster",
                "cluster",
                "delete",
                "label-pod",
                "label-namespace",
                "label-node",
                "add",
                "finish",
                "remove",
            )
        )
    ):
        case "apply":
            return ApplyPolicy(policy=policy, spec=draw(policy_specs()))
        case "cluster":
            return draw(cluster_actions(selectors()))
        case "delete":
            return DeletePolicy(name=policy)
        case "label-pod":
            return LabelPod(pod="x/a", set=draw(labels()))
        case "label-namespace":
            return LabelNamespace(name=draw(st.sampled_from(NAMESPACES)), set=draw(labels()), drop=tuple(draw(labels())))
        case "label-node":
            return draw(node_labels())
        case "finish" | "remove":
            return FinishPod(pod="y/a") if kind == "finish" else RemovePod(pod="z/c")
        case _:
            spec = draw(pod_specs())
            return AddPod(pod=pod, labels=spec.labels, containers=spec.containers, node=spec.node, families=spec.families)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Small random clusters, some policies at once, then some changes; nothing is expected in writing."""
    tiers = draw(st.lists(cluster_actions(selectors()), max_size=3))
    first: list[Action] = [
        ApplyPolicy(policy=f"{draw(st.sampled_from(NAMESPACES))}/p{number}", spec=draw(policy_specs()))
        for number in range(draw(st.integers(0 if tiers else 1, 3)))
    ]
    later: list[Action] = []
    gone: set[str] = set()
    for action in draw(st.lists(changes(), max_size=4)):
        if isinstance(action, FinishPod | RemovePod | LabelPod) and action.pod in gone:
            continue
        if isinstance(action, FinishPod | RemovePod):
            gone.add(action.pod)
        elif isinstance(action, AddPod):
            gone.discard(action.pod)
        later.append(action)
    return Scenario(
        name="random/random",
        description="a random cluster",
        namespaces={name: draw(labels()) for name in NAMESPACES},
        pods={pod: draw(pod_specs()) for pod in _PODS},
        steps=(Step(actions=(*first, *tiers), expectations=()), *(Step(actions=(action,), expectations=()) for action in later)),
    )
