"""Generated cases: every form of target, peer, port and rule, conflicts of policies, and changes; hundreds, by seed.

They are systematic where a person would tire (each form in each direction) and drawn at random where forms meet. The same
seed gives the same cases, and a case keeps its name and content when others are left out. What must come of them is asked of
the oracle. Tags say what a case is about and are found from its content: ``ingress``, ``peer-block``, ``port-range``, …
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from polyplane_conformance.actions import (
    Action,
    AddPod,
    ApplyPolicy,
    DeletePolicy,
    FinishPod,
    LabelNamespace,
    LabelPod,
    PodSpec,
    RemovePod,
    Restart,
)
from polyplane_conformance.cast import NAMESPACES, OUTSIDE, PODS
from polyplane_conformance.scenario import Scenario, Step

Spec = Mapping[str, Any]

SIDES: Final[Mapping[str, str]] = {"ingress": "from", "egress": "to"}


def _labels(**labels: str) -> Spec:
    return {"matchLabels": labels}


def _expression(key: str, operator: str, *values: str) -> Spec:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


#: Who is isolated: the policy's ``podSelector``.
TARGETS: Final[Mapping[str, Spec]] = {
    "everybody": {},
    "one": _labels(pod="a"),
    "some": _expression("pod", "In", "a", "b"),
    "others": _expression("pod", "NotIn", "a"),
    "labelled": _expression("pod", "Exists"),
    "unlabelled": _expression("pod", "DoesNotExist"),
    "both-ways": {"matchLabels": {"pod": "a"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
    "nobody": _labels(pod="none"),
}

#: Lists of peers; None: the key is left out.
PEERS: Final[Mapping[str, list[Spec] | None]] = {
    "absent": None,
    "empty": [],
    "own-pods": [{"podSelector": {}}],
    "own-pod": [{"podSelector": _labels(pod="b")}],
    "own-pods-but": [{"podSelector": _expression("pod", "NotIn", "b")}],
    "namespace": [{"namespaceSelector": _labels(ns="y")}],
    "namespace-by-name": [{"namespaceSelector": _labels(**{"kubernetes.io/metadata.name": "z"})}],
    "namespaces": [{"namespaceSelector": {}}],
    "namespaces-but": [{"namespaceSelector": _expression("ns", "NotIn", "x", "y")}],
    "pod-of-namespace": [{"namespaceSelector": _labels(ns="y"), "podSelector": _labels(pod="c")}],
    "pod-of-any": [{"namespaceSelector": {}, "podSelector": _expression("pod", "In", "b", "c")}],
    "pod-or-namespace": [{"podSelector": _labels(pod="b")}, {"namespaceSelector": _labels(ns="z")}],
    "block-4": [{"ipBlock": {"cidr": "10.244.2.0/24"}}],
    "block-6": [{"ipBlock": {"cidr": "fd00:10:244:2::/64"}}],
    "block-but": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.2.0/24", "10.244.1.11/32"]}}],
    "block-but-6": [{"ipBlock": {"cidr": "::/0", "except": ["fd00:10:244:3::/64"]}}],
    "outside": [{"ipBlock": {"cidr": "{outside:4/24}"}}, {"ipBlock": {"cidr": "{outside:6/64}"}}],
    "block-and-pod": [{"ipBlock": {"cidr": "{y/b:4}"}}, {"podSelector": _labels(pod="c")}],
    "everything": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}],
}

#: Lists of ports; None: the key is left out.
PORTS: Final[Mapping[str, list[Spec] | None]] = {
    "absent": None,
    "empty": [],
    "item-empty": [{}],
    **{f"any-{protocol.lower()}": [{"protocol": protocol}] for protocol in ("TCP", "UDP", "SCTP")},
    **{f"number-{protocol.lower()}": [{"port": 80, "protocol": protocol}] for protocol in ("TCP", "UDP", "SCTP")},
    "number-default": [{"port": 81}],
    **{f"name-{protocol.lower()}": [{"port": f"serve-80-{protocol.lower()}", "protocol": protocol}] for protocol in ("TCP", "UDP", "SCTP")},
    "name-of-other": [{"port": "serve-80-udp", "protocol": "TCP"}],
    "name-unknown": [{"port": "nowhere"}],
    "range": [{"port": 80, "endPort": 81}],
    "range-of-one": [{"port": 81, "endPort": 81}],
    "range-just-below": [{"port": 79, "endPort": 80}],
    "range-just-above": [{"port": 81, "endPort": 82}],
    "range-sctp": [{"port": 1, "endPort": 80, "protocol": "SCTP"}],
    "range-all": [{"port": 1, "endPort": 65535}],
    "two": [{"port": 80}, {"port": 80, "protocol": "UDP"}],
    "overlap": [{"port": 70, "endPort": 80}, {"port": 80, "endPort": 90}],
    "elsewhere": [{"port": 8080}],
}


@dataclass(frozen=True, slots=True)
class Family:
    """A family of cases: its name, and how many of what it draws at random belong to it (0: it is systematic)."""

    name: str
    drawn: int


FAMILIES: Final = (
    Family("targets", 0),
    Family("peers", 0),
    Family("ports", 0),
    Family("rules", 110),
    Family("conflicts", 90),
    Family("actions", 90),
)


def rule(direction: str, peers: str, ports: str) -> Spec:
    """Return a rule by the names of its forms."""
    made: dict[str, Any] = {}
    if PEERS[peers] is not None:
        made[SIDES[direction]] = PEERS[peers]
    if PORTS[ports] is not None:
        made["ports"] = PORTS[ports]
    return made


def spec(direction: str, target: str, rules: Iterable[Spec]) -> dict[str, Any]:
    """Return a policy's spec of one direction."""
    return {"podSelector": TARGETS[target], "policyTypes": [direction.capitalize()], direction: list(rules)}


@cache
def generate(seed: int = 0) -> tuple[Scenario, ...]:
    """Return all generated cases of a seed, without expectations; see `polyplane_conformance.foresee`."""
    return tuple(case for family in FAMILIES for case in _cases(family, seed))


def choose(cases: Iterable[Scenario], tags: Iterable[str]) -> list[Scenario]:
    """Return the cases that carry all of the tags."""
    wanted = frozenset(tags)
    return [case for case in cases if wanted <= case.tags]


def _cases(family: Family, seed: int) -> Iterator[Scenario]:
    if family.drawn:
        for number in range(family.drawn):
            draw = random.Random(f"{seed} {family.name} {number}")  # noqa: S311 - cases, not secrets
            yield _case(f"{family.name}-{seed}-{number:03}", _DRAWN[family.name](draw))
        return
    for name, steps in _SYSTEMATIC[family.name]():
        yield _case(f"{family.name}-{name}", steps)


def _case(name: str, steps: list[list[Action]]) -> Scenario:
    actions = [action for step in steps for action in step]
    tags = frozenset(_tags(name.partition("-")[0], actions))
    return Scenario(
        name=f"generated/{name}",
        description=f"generated: {', '.join(sorted(tags))}",
        namespaces={namespace: {"ns": namespace} for namespace in NAMESPACES},
        pods={pod: PodSpec() for pod in PODS},
        steps=tuple(Step(actions=tuple(step), expectations=()) for step in steps),
        features=frozenset(tags & {"sctp", "port-ranges"}),
        tags=tags,
    )


# --- systematic ------------------------------------------------------------------------------------------------------


def _targets() -> Iterator[tuple[str, list[list[Action]]]]:
    for direction in SIDES:
        for target in TARGETS:
            yield f"{direction}-{target}-closed", [[ApplyPolicy(policy="x/p", spec=spec(direction, target, ()))]]
            opened = spec(direction, target, [rule(direction, "namespace", "number-tcp")])
            yield f"{direction}-{target}-ajar", [[ApplyPolicy(policy="x/p", spec=opened)]]


def _peers() -> Iterator[tuple[str, list[list[Action]]]]:
    for direction in SIDES:
        for peers in PEERS:
            made = spec(direction, "one", [rule(direction, peers, "number-tcp")])
            yield f"{direction}-{peers}", [[ApplyPolicy(policy="x/p", spec=made)]]


def _ports() -> Iterator[tuple[str, list[list[Action]]]]:
    for direction in SIDES:
        for ports in PORTS:
            made = spec(direction, "one", [rule(direction, "pod-or-namespace", ports)])
            yield f"{direction}-{ports}", [[ApplyPolicy(policy="x/p", spec=made)]]


# --- drawn -----------------------------------------------------------------------------------------------------------


def _any_rules(draw: random.Random, direction: str, most: int = 3) -> list[Spec]:
    return [rule(direction, draw.choice(list(PEERS)), draw.choice(list(PORTS))) for _ in range(draw.randint(0, most))]


def _any_spec(draw: random.Random, target: str | None = None) -> dict[str, Any]:
    directions = draw.choice((["ingress"], ["egress"], ["ingress", "egress"]))
    made: dict[str, Any] = {"podSelector": TARGETS[target or draw.choice(list(TARGETS))]}
    made["policyTypes"] = [direction.capitalize() for direction in directions]
    return made | {direction: _any_rules(draw, direction) for direction in directions}


def _rules(draw: random.Random) -> list[list[Action]]:
    """One policy of up to three rules in each of its directions."""
    direction = draw.choice(list(SIDES))
    first = [rule(direction, draw.choice(list(PEERS)), draw.choice(list(PORTS))), *_any_rules(draw, direction, 2)]
    made = spec(direction, draw.choice(("one", "everybody", "some")), first)
    if draw.random() < 0.3:
        other = "egress" if direction == "ingress" else "ingress"
        made = made | {"policyTypes": ["Ingress", "Egress"], other: _any_rules(draw, other)}
    return [[ApplyPolicy(policy="x/p", spec=made)]]


def _conflicts(draw: random.Random) -> list[list[Action]]:
    """Policies that select the same pods, or both ends of the same connections; then one of them goes."""
    target = draw.choice(("everybody", "one", "some"))
    policies: list[Action] = [ApplyPolicy(policy="x/p0", spec=_any_spec(draw, target))]
    for number in range(1, draw.randint(2, 3)):
        namespace = draw.choice(("x", "x", "y"))
        policies.append(ApplyPolicy(policy=f"{namespace}/p{number}", spec=_any_spec(draw)))
    if draw.random() < 0.3:
        closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        policies.append(ApplyPolicy(policy=f"{draw.choice('xy')}/closed", spec=closed))
    return [policies, [DeletePolicy(name="x/p0")]]


def _actions(draw: random.Random) -> list[list[Action]]:
    """Policies and up to four changes, looked at after each."""
    steps: list[list[Action]] = [[ApplyPolicy(policy=f"{draw.choice('xy')}/p{number}", spec=_any_spec(draw)) for number in range(2)]]
    added = gone = False
    for _ in range(draw.randint(2, 4)):
        match draw.choice(("update", "update", "delete", "label-pod", "label-pod", "label-namespace", "add", "leave", "restart")):
            case "update":
                steps.append([ApplyPolicy(policy="x/p0", spec=_any_spec(draw))])
            case "delete":
                steps.append([DeletePolicy(name="*")])
            case "label-pod":
                steps.append([LabelPod(pod=draw.choice(("x/a", "x/b", "y/c")), set={"pod": draw.choice("abc")})])
            case "label-namespace":
                steps.append([LabelNamespace(name=draw.choice("yz"), set={"ns": draw.choice("xyz")})])
            case "add" if not added:
                added = True
                steps.append([AddPod(pod=draw.choice(("x/d", "y/d")), labels={"pod": draw.choice("abc")})])
            case "leave" if not gone:
                gone = True
                steps.append([draw.choice((RemovePod(pod="z/b"), FinishPod(pod="z/b")))])
            case _:
                steps.append([Restart(what="agent")])
    return steps


_SYSTEMATIC: Final = {"targets": _targets, "peers": _peers, "ports": _ports}
_DRAWN: Final = {"rules": _rules, "conflicts": _conflicts, "actions": _actions}


# --- tags ------------------------------------------------------------------------------------------------------------

_VERBS: Final[Mapping[type, str]] = {
    DeletePolicy: "delete-policy",
    LabelPod: "label-pod",
    LabelNamespace: "label-namespace",
    AddPod: "add-pod",
    RemovePod: "remove-pod",
    FinishPod: "finish-pod",
    Restart: "restart",
}


def _tags(family: str, actions: list[Action]) -> Iterator[str]:
    yield family
    seen: set[str] = set()
    for action in actions:
        if not isinstance(action, ApplyPolicy):
            yield _VERBS[type(action)]
            continue
        if action.policy in seen:
            yield "update-policy"
        seen.add(action.policy)
        for direction in SIDES:
            if direction.capitalize() in action.spec["policyTypes"]:
                yield direction
            for one in action.spec.get(direction, ()):
                yield from _rule_tags(one, SIDES[direction])
    if len(seen) > 1:
        yield "several-policies"


def _rule_tags(one: Spec, side: str) -> Iterator[str]:
    peers: Iterable[Spec] = one.get(side) or ({},)
    for peer in peers:
        if "ipBlock" in peer:
            yield "peer-block"
            if peer["ipBlock"].get("except"):
                yield "peer-block-except"
        if "podSelector" in peer:
            yield "peer-pods"
        if "namespaceSelector" in peer:
            yield "peer-namespaces"
        if not peer:
            yield "peer-anybody"
    for port in one.get("ports") or ():
        yield port.get("protocol", "TCP").lower()
        if "endPort" in port:
            yield "port-ranges"
        elif isinstance(port.get("port"), str):
            yield "port-name"
        else:
            yield "port-number" if "port" in port else "port-any"


#: Who is asked next to the pods.
ACTORS: Final = (OUTSIDE,)
