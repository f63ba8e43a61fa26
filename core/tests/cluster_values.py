"""Small clusters for tests of the compiler, built without any policy API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hypothesis import strategies as st

from polyplane.cluster.model import (
    Change,
    CidrPeer,
    ClusterPolicy,
    ContainerPort,
    LabelSelector,
    Namespace,
    Node,
    NodePeer,
    ObjectKey,
    Operator,
    Peer,
    Pod,
    PodPeer,
    PodSelector,
    PolicyRule,
    PortMatch,
    Requirement,
    TierSpec,
)
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Action, Direction, TierEnd

NAMESPACE_TIER = TierSpec(name="networkpolicy", position=1000, end=TierEnd.DENY, exempts_self=True)
ADMIN_TIER = TierSpec(name="admin", position=100)
BASELINE_TIER = TierSpec(name="baseline", position=10_000)


def select(**labels: str) -> LabelSelector:
    return LabelSelector(tuple(sorted(Requirement(key, Operator.IN, (value,)) for key, value in labels.items())))


def pod(name: str, address: str | None = None, *, node: str = "n1", labels: Mapping[str, str] | None = None, **more: object) -> Pod:
    namespace, _, short = name.partition("/")
    addresses = (Cidr.parse(address),) if address else ()
    values: dict[str, object] = {"labels": labels or {"pod": short}, "node": node, "addresses": addresses, **more}
    return Pod(namespace=namespace, name=short, **values)  # type: ignore[arg-type]  # each value has its field's type


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(name=name, labels={"kubernetes.io/metadata.name": name, **labels})


def policy(
    name: str,
    *,
    pods: LabelSelector | None = None,
    ingress: Iterable[PolicyRule] | None = None,
    egress: Iterable[PolicyRule] | None = None,
    tier: TierSpec = NAMESPACE_TIER,
    isolates: Iterable[Direction] | None = None,
    order: tuple[int, ...] = (),
) -> ClusterPolicy:
    where, _, short = name.partition("/")
    rules = {
        direction: tuple(given) for direction, given in ((Direction.INGRESS, ingress), (Direction.EGRESS, egress)) if given is not None
    }
    return ClusterPolicy(
        key=ObjectKey("test/v1", "Policy", where, short),
        tier=tier,
        order=order,
        subject=PodSelector(namespace=where, pods=pods or LabelSelector()),
        rules=rules,
        isolates=frozenset(rules if isolates is None else isolates),
    )


def put(*objects: Pod | Namespace | Node | ClusterPolicy) -> list[Change]:
    return [Change(None, value) for value in objects]


# --- random ones -------------------------------------------------------------------------------------------------------

NAMES = ("x", "y")
PODS = ("a", "b", "c")
VALUES = st.sampled_from(["1", "2"])
LABELS = st.dictionaries(st.just("app"), VALUES, max_size=1)
NUMBERS = st.sampled_from([80, 81, 8080])


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(Operator))
    key = "app"
    if operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST):
        return Requirement(key, operator)
    return Requirement(key, operator, tuple(sorted(draw(st.sets(VALUES, min_size=1)))))


SELECTORS = st.builds(LabelSelector, st.lists(requirements(), max_size=1).map(lambda found: tuple(sorted(set(found)))))
POD_SELECTORS = st.one_of(
    st.builds(PodSelector, namespace=st.sampled_from(NAMES), pods=SELECTORS), st.builds(PodSelector, namespaces=SELECTORS, pods=SELECTORS)
)
BLOCKS = st.sampled_from([Cidr.parse(text) for text in ("10.0.0.0/24", "0.0.0.0/0", "10.0.0.1/32", "::/0", "fd00::/16")])
PEERS: st.SearchStrategy[Peer] = st.one_of(
    st.builds(PodPeer, POD_SELECTORS),
    st.builds(PodPeer, POD_SELECTORS),
    st.builds(CidrPeer, BLOCKS, st.sampled_from([(), (Cidr.parse("10.0.0.1/32"),)])),
    st.builds(NodePeer, SELECTORS),
)
PORTS = st.one_of(
    st.builds(PortMatch, protocol=st.sampled_from([6, 17])),
    st.builds(PortMatch, protocol=st.just(6), first=NUMBERS, last=st.just(9000)),
    st.builds(PortMatch, protocol=st.sampled_from([6, None]), name=st.sampled_from(["web", "dns"])),
)
RULES = st.builds(
    PolicyRule,
    action=st.sampled_from([Action.ALLOW, Action.ALLOW, Action.DENY, Action.PASS, Action.LOG]),
    peers=st.one_of(st.none(), *[st.lists(PEERS, min_size=1, max_size=3).map(tuple)] * 3, st.just(())),
    ports=st.one_of(st.none(), st.lists(PORTS, min_size=1, max_size=2).map(tuple)),
)


def objects() -> st.SearchStrategy[Pod | Namespace | Node | ClusterPolicy]:
    return st.sampled_from(["pod", "pod", "namespace", "policy", "policy", "node"]).flatmap(objects_of)


def clusters() -> st.SearchStrategy[list[Pod | Namespace | Node | ClusterPolicy]]:
    """A cluster with something of everything, so that a change of it rarely goes unnoticed."""
    kinds = ["pod"] * 5 + ["namespace"] * 2 + ["policy"] * 4 + ["node"]
    return st.tuples(*map(objects_of, kinds)).map(list)


@st.composite
def objects_of(draw: st.DrawFn, kind: str) -> Pod | Namespace | Node | ClusterPolicy:
    where = draw(st.sampled_from(NAMES))
    if kind == "namespace":
        return namespace(where, **draw(LABELS))
    if kind == "node":
        return Node(
            name=draw(st.sampled_from(["n1", "n2"])), labels=draw(LABELS), addresses=(Cidr.parse(f"192.0.2.{draw(st.integers(1, 3))}"),)
        )
    if kind == "policy":
        rules = st.one_of(st.none(), st.lists(RULES, max_size=2), st.lists(RULES, min_size=1, max_size=2))
        tier = draw(st.sampled_from([NAMESPACE_TIER, NAMESPACE_TIER, ADMIN_TIER, BASELINE_TIER]))
        return policy(
            f"{where}/p{draw(st.integers(1, 3))}",
            pods=draw(st.one_of(st.just(LabelSelector()), SELECTORS)),
            ingress=draw(rules),
            egress=draw(rules),
            tier=tier,
            order=(draw(st.integers(0, 1)),) if tier.end is TierEnd.NEXT else (),
        )
    ports = st.lists(
        st.builds(ContainerPort, st.sampled_from(["web", "dns"]), st.sampled_from([6, 6, 17]), NUMBERS), min_size=1, max_size=2
    ).map(tuple)
    return pod(
        f"{where}/{draw(st.sampled_from(PODS))}",
        draw(st.sampled_from([None, *(f"10.0.0.{number}" for number in range(1, 6))])),
        node=draw(st.sampled_from(["n1", "n1", "n2"])),
        labels=draw(LABELS),
        host_network=draw(st.sampled_from([False] * 9 + [True])),
        ports=draw(ports),
    )


def identity(value: Pod | Namespace | Node | ClusterPolicy) -> object:
    return value.key if isinstance(value, ClusterPolicy) else (type(value), value.id if isinstance(value, Pod) else value.name)
