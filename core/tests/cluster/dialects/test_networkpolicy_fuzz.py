"""Whatever a decoder may hand over, the dialect answers with a policy or with the one documented error."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polyplane.cluster.decode import DECODERS
from polyplane.cluster.dialects.networkpolicy import parse_network_policy
from polyplane.cluster.model import ClusterPolicy
from polyplane.errors import InvalidObject

WORDS = [
    *("apiVersion", "kind", "metadata", "spec", "status", "name", "namespace", "labels", "annotations", "podSelector", "policyTypes"),
    *("ingress", "egress", "from", "to", "ports", "port", "endPort", "protocol", "ipBlock", "cidr", "except", "namespaceSelector"),
    *("matchLabels", "matchExpressions", "key", "operator", "values", "podIPs", "podIP", "ip", "nodeName", "containers", "containerPort"),
    *("addresses", "type", "address", "phase", "hostNetwork", "initContainers", "polyplane.dev/host-interface", "ownerReferences"),
]
VALUES = [
    "web",
    "TCP",
    "In",
    "Exists",
    "Ingress",
    "Egress",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "fd00::/8",
    "::ffff:1.2.3.4/100",
    "010.0.0.1/8",
    "80",
    "",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 80, 65535, 65536, 10**4000]),
    st.floats(),
    st.sampled_from(VALUES),
    st.text(max_size=20),
    st.text(alphabet="0123456789abcdef.:/%", max_size=24),
    st.binary(max_size=3),
)
keys = st.one_of(st.sampled_from(WORDS), st.text(max_size=5), st.integers(), st.none(), st.booleans())
anything = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)), max_leaves=20
)


@st.composite
def near(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> Any:
    """Mostly what belongs there, sometimes anything."""
    return draw(anything if draw(st.integers(0, 19)) == 7 else strategy)


def members(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional={name.rstrip("_"): near(strategy) for name, strategy in fields.items()})


labels = st.dictionaries(st.sampled_from(["app", "a/b", "-", "x y"]), near(st.sampled_from(VALUES)), max_size=2)
expressions = members(
    key=st.sampled_from(["app", "-"]),
    operator=st.sampled_from(["In", "NotIn", "Exists"]),
    values=st.lists(st.sampled_from(VALUES), max_size=2),
)
selectors = members(matchLabels=labels, matchExpressions=st.lists(expressions, max_size=2))
cidrs = st.one_of(st.sampled_from(VALUES), st.text(alphabet="0123456789abcdef.:/", max_size=24))
peers = members(podSelector=selectors, namespaceSelector=selectors, ipBlock=members(cidr=cidrs, except_=st.lists(near(cidrs), max_size=2)))
ports = members(
    protocol=st.sampled_from(["TCP", "UDP", "SCTP", ""]),
    port=st.one_of(st.integers(-1, 65537), st.sampled_from(["http", "80"])),
    endPort=st.integers(-1, 65537),
)
rules = members(from_=st.lists(near(peers), max_size=2), to=st.lists(near(peers), max_size=2), ports=st.lists(near(ports), max_size=2))
specs = members(
    podSelector=selectors,
    policyTypes=st.lists(st.sampled_from(["Ingress", "Egress"]), max_size=3),
    ingress=st.lists(near(rules), max_size=2),
    egress=st.lists(near(rules), max_size=2),
)
objects = st.fixed_dictionaries(
    {
        "apiVersion": st.just("networking.k8s.io/v1"),
        "kind": st.just("NetworkPolicy"),
        "metadata": near(
            st.fixed_dictionaries({"name": near(st.just("web"))}, optional={"namespace": near(st.just("shop")), "labels": near(labels)})
        ),
        "spec": near(specs),
    }
)


def outcome(function: Any, raw: Any) -> Any:
    """What the function returns, or the one error it may raise; any other fails the test."""
    try:
        return function(raw)
    except InvalidObject as error:
        return error


# A machine under load must not fail a test of behaviour: no deadline.
@settings(deadline=None)
@given(st.one_of(anything, objects))
def test_raises_nothing_but_the_documented_error(raw: Any) -> None:
    result = outcome(parse_network_policy, raw)
    if isinstance(result, InvalidObject):
        assert len(result.problem) < 2000, "a message stays readable whatever was in the object"
    else:
        assert isinstance(result, ClusterPolicy)
        assert result.rules.keys() == result.isolates


port_lists = st.lists(
    near(members(name=st.sampled_from(VALUES), containerPort=st.integers(0, 70000), protocol=st.sampled_from(["TCP", "x"]))), max_size=2
)
containers = st.lists(near(members(ports=port_lists)), max_size=2)
addresses = st.lists(near(members(ip=cidrs, type=st.sampled_from(["InternalIP", "Hostname"]), address=cidrs)), max_size=2)
metadata = st.fixed_dictionaries(
    {"name": near(st.just("web"))}, optional={"labels": near(labels), "annotations": near(labels), "namespace": near(st.just("a"))}
)
cluster_objects = st.fixed_dictionaries(
    {"metadata": near(metadata)},
    optional={
        "spec": near(members(nodeName=st.just("n"), hostNetwork=st.booleans(), containers=containers, initContainers=containers)),
        "status": near(members(phase=st.just("Failed"), podIPs=addresses, addresses=addresses, podIP=cidrs)),
    },
)


@settings(deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.one_of(anything, cluster_objects))
def test_so_do_the_decoders_of_pods_namespaces_and_nodes(kind: str, raw: Any) -> None:
    result = outcome(DECODERS[kind], raw)
    assert result.kind == kind if isinstance(result, InvalidObject) else type(result).__name__ == kind
