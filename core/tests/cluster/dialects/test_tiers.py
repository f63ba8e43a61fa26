"""What policies for cluster administrators mean, in both API versions: translation, failing closed, messages."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyplane.cluster.dialects.adminnetworkpolicy import (
    AdminNetworkPolicyDialect,
    parse_admin_network_policy,
    parse_baseline_admin_network_policy,
)
from polyplane.cluster.dialects.clusternetworkpolicy import (
    CLUSTER_NETWORK_POLICY,
    ClusterNetworkPolicyDialect,
    parse_cluster_network_policy,
)
from polyplane.cluster.dialects.tiers import ADMIN, BASELINE
from polyplane.cluster.model import (
    EVERYTHING,
    CidrPeer,
    ClusterPolicy,
    LabelSelector,
    NodePeer,
    ObjectKey,
    Operator,
    PodPeer,
    PodSelector,
    PolicyRule,
    PortMatch,
    Requirement,
)
from polyplane.errors import InvalidObject
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import SCTP, TCP, UDP, Action, Direction, TierEnd

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
GROUP = "policy.networking.k8s.io"
EVERYWHERE: Any = {"namespaces": {}}
NOBODY = PolicyRule(action=Action.ALLOW, peers=())
DENY_ALL = PolicyRule(action=Action.DENY)
SHOP = LabelSelector((Requirement("team", Operator.IN, ("shop",)),))


def cnp(spec: Any = None, name: str = "p", **parts: Any) -> Any:
    spec = {"tier": "Admin", "priority": 7, "subject": EVERYWHERE, **parts} if spec is None else spec
    return parse_cluster_network_policy(
        {"apiVersion": f"{GROUP}/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec}
    )


def anp(**parts: Any) -> Any:
    spec = {"priority": 7, "subject": EVERYWHERE, **parts}
    return parse_admin_network_policy(
        {"apiVersion": f"{GROUP}/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "p"}, "spec": spec}
    )


def banp(name: str = "default", **parts: Any) -> Any:
    raw = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "BaselineAdminNetworkPolicy", "metadata": {"name": name}}
    return parse_baseline_admin_network_policy({**raw, "spec": {"subject": EVERYWHERE, **parts}})


def egress(*to: Any, action: str = "Deny", **parts: Any) -> Any:
    (rule,) = cnp(egress=[{"action": action, "to": list(to), **parts}]).rules[EGRESS]
    return rule


def protocol(item: Any) -> Any:
    (port,) = egress(EVERYWHERE, protocols=[item]).ports
    return port


def old_port(item: Any) -> Any:
    (rule,) = anp(ingress=[{"action": "Deny", "from": [EVERYWHERE], "ports": [item]}]).rules[INGRESS]
    return rule.ports[0]


def test_identity_tier_and_order() -> None:
    policy = cnp()
    assert policy == ClusterPolicy(
        key=ObjectKey(f"{GROUP}/v1alpha2", "ClusterNetworkPolicy", "", "p"), tier=ADMIN, order=(7,), subject=PodSelector(), rules={}
    )
    assert cnp(tier="Baseline", priority=0).tier is BASELINE
    assert anp().tier is ADMIN
    assert (anp().order, anp().key.kind) == ((7,), "AdminNetworkPolicy")
    assert (banp().tier, banp().order) == (BASELINE, (1001,))
    assert ADMIN.position < 1_000_000 < BASELINE.position
    for tier in (ADMIN, BASELINE):
        assert (tier.end, tier.exempts_self) == (TierEnd.NEXT, False)


def test_plugins_announce_their_kinds() -> None:
    assert list(ClusterNetworkPolicyDialect().polyplane_dialects()) == [CLUSTER_NETWORK_POLICY]
    kinds = [(dialect.kind, dialect.namespaced) for dialect in AdminNetworkPolicyDialect().polyplane_dialects()]
    assert kinds == [("AdminNetworkPolicy", False), ("BaselineAdminNetworkPolicy", False)]


def test_subjects() -> None:
    team = {"matchLabels": {"team": "shop"}}
    assert cnp(subject={"namespaces": team}).subject == PodSelector(namespaces=SHOP)
    assert cnp(subject={"pods": {"podSelector": team}}).subject == PodSelector(pods=SHOP)
    assert cnp(subject={"pods": {"namespaceSelector": team, "podSelector": {}}}).subject == PodSelector(namespaces=SHOP)


def test_peers() -> None:
    team = {"matchLabels": {"team": "shop"}}
    assert egress({"namespaces": team}, {"pods": {"podSelector": team}}).peers == (
        PodPeer(PodSelector(namespaces=SHOP)),
        PodPeer(PodSelector(pods=SHOP)),
    )
    assert egress({"nodes": {}}, {"nodes": team}).peers == (NodePeer(EVERYTHING), NodePeer(SHOP))
    networks = egress({"networks": ["10.0.0.0/8", "fd00::/8"]}).peers
    assert networks == (CidrPeer(Cidr.parse("10.0.0.0/8")), CidrPeer(Cidr.parse("fd00::/8")))


def test_host_bits_of_a_network_are_cleared_with_a_warning() -> None:
    policy = cnp(egress=[{"action": "Deny", "to": [{"networks": ["10.1.2.3/8"]}]}])
    assert policy.rules[EGRESS][0].peers == (CidrPeer(Cidr.parse("10.0.0.0/8")),)
    (warning,) = policy.warnings
    assert warning.startswith("spec.egress[0].to[0].networks[0]: '10.1.2.3/8' means 10.0.0.0/8")


@pytest.mark.parametrize(
    ("item", "port"),
    [
        ({"tcp": {"destinationPort": {"number": 80}}}, PortMatch(protocol=TCP, first=80, last=80)),
        ({"udp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}}, PortMatch(protocol=UDP, first=1, last=65535)),
        ({"sctp": {"destinationPort": {"number": 1}}}, PortMatch(protocol=SCTP, first=1, last=1)),
        ({"destinationNamedPort": "web"}, PortMatch(protocol=None, name="web")),
    ],
)
def test_protocols(item: Any, port: Any) -> None:
    assert protocol(item) == port


@pytest.mark.parametrize(
    ("item", "port"),
    [
        ({"portNumber": {"port": 80}}, PortMatch(protocol=TCP, first=80, last=80)),
        ({"portNumber": {"protocol": "UDP", "port": 80}}, PortMatch(protocol=UDP, first=80, last=80)),
        ({"portRange": {"start": 80, "end": 80}}, PortMatch(protocol=TCP, first=80, last=80)),
        ({"namedPort": "web"}, PortMatch(protocol=None, name="web")),
    ],
)
def test_old_ports(item: Any, port: Any) -> None:
    assert old_port(item) == port


def test_actions() -> None:
    assert [egress(EVERYWHERE, action=word).action for word in ("Accept", "Deny", "Pass")] == [Action.ALLOW, Action.DENY, Action.PASS]
    rules = anp(ingress=[{"action": word, "from": [EVERYWHERE]} for word in ("Allow", "Deny", "Pass")]).rules[INGRESS]
    assert [rule.action for rule in rules] == [Action.ALLOW, Action.DENY, Action.PASS]


@pytest.mark.parametrize(
    ("to", "place"),
    [
        ([{}], "spec.egress[0].to[0]: says nothing; write namespaces or pods or"),
        ([None], "spec.egress[0].to[0]: says nothing;"),
        ([{"serviceAccounts": {}}], "spec.egress[0].to[0]: 'serviceAccounts' is not known here;"),
        ([EVERYWHERE, {"namespaces": {}, "zones": ["a"]}], "spec.egress[0].to[1]: 'zones' is not known here;"),
        ([{"pods": {"podSelector": {}, "owner": "me"}}], "spec.egress[0].to[0].pods: 'owner' is not known here;"),
        ([{"domainNames": ["example.org"]}], "spec.egress[0].to[0].domainNames: domain names cannot be resolved here;"),
        (
            [{"nodes": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}],
            "spec.egress[0].to[0].nodes.matchExpressions[0].operator: 'Near' is not an operator;",
        ),
    ],
)
def test_what_is_not_understood_fails_closed(to: Any, place: str) -> None:
    for action, rule in (("Accept", NOBODY), ("Deny", DENY_ALL), ("Pass", DENY_ALL)):
        policy = cnp(egress=[{"action": action, "to": to, "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}])
        assert policy.rules[EGRESS] == (rule,)
        (text,) = policy.unsupported
        assert text.startswith(place)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(
    ("parse", "action", "rule"),
    [
        (cnp, "Accept", NOBODY),
        (cnp, "Deny", DENY_ALL),
        (cnp, "Pass", DENY_ALL),
        (anp, "Allow", NOBODY),
        (anp, "Deny", DENY_ALL),
        (anp, "Pass", DENY_ALL),
        (banp, "Allow", NOBODY),
        (banp, "Deny", DENY_ALL),
    ],
)
@pytest.mark.parametrize(
    "peers", [[{}], [{"serviceAccounts": {}}], [EVERYWHERE, {"serviceAccounts": {}}], [{"namespaces": {}, "zones": []}]]
)
def test_unknown_peers_fail_closed_in_every_kind(parse: Any, action: str, rule: Any, direction: Any, peers: Any) -> None:
    side = "from" if direction is INGRESS else "to"
    # The rules around it stay as they are.
    around = {"action": "Deny", side: [EVERYWHERE]}
    policy = parse(**{direction.value: [around, {"action": action, side: peers}, around]})
    plain = PolicyRule(action=Action.DENY, peers=(PodPeer(PodSelector()),))
    assert policy.rules[direction] == (plain, rule, plain)
    (text,) = policy.unsupported
    assert text.startswith(f"spec.{direction}[1].{side}[")


@pytest.mark.parametrize("item", [{}, {"icmp": {}}, {"tcp": {"flags": ["syn"]}}, {"tcp": {"destinationPort": {"name": "web"}}}])
def test_protocols_that_are_not_understood_fail_closed(item: Any) -> None:
    assert egress(EVERYWHERE, action="Accept", protocols=[{"destinationNamedPort": "web"}, item]) == NOBODY
    assert egress(EVERYWHERE, protocols=[item]) == DENY_ALL


@pytest.mark.parametrize("item", [{"portNumber": {"protocol": "ICMP", "port": 1}}, {"portRange": {"start": 2, "end": 1}}, {"service": "x"}])
def test_old_ports_that_are_not_understood_fail_closed(item: Any) -> None:
    policy = anp(egress=[{"action": "Allow", "to": [EVERYWHERE], "ports": [item]}])
    assert policy.rules[EGRESS] == (NOBODY,)
    assert len(policy.unsupported) == 1


def test_the_baseline_kind_knows_no_domain_names() -> None:
    policy = banp(egress=[{"action": "Allow", "to": [{"domainNames": ["example.org"]}]}])
    assert policy.rules[EGRESS] == (NOBODY,)
    assert "'domainNames' is not known here" in policy.unsupported[0]


def message(call: Any) -> str:
    with pytest.raises(InvalidObject) as caught:
        call()
    return f"{caught.value.field}: {caught.value.problem}"


def deny(**parts: Any) -> Any:
    return lambda: cnp(egress=[{"action": "Deny", "to": [EVERYWHERE], **parts}])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: cnp({}), "spec.tier: is missing; write one of Admin, Baseline"),
        (lambda: cnp(tier="admin"), "spec.tier: 'admin' is none of the known values; use one of Admin, Baseline"),
        (lambda: cnp(priority=1001), "spec.priority: 1001 is out of range; write a number between 0 and 1000"),
        (lambda: cnp(subject=None), "spec.subject: is missing; write namespaces or pods"),
        (lambda: cnp(subject={}), "spec.subject: says nothing; write namespaces or pods"),
        (lambda: cnp(subject={"nodes": {}}), "spec.subject: 'nodes' is not known here; use namespaces or pods"),
        (
            lambda: cnp(subject={"namespaces": {}, "pods": {"podSelector": {}}}),
            "spec.subject: has namespaces and pods; write just one of them, and the others as items of their own",
        ),
        (lambda: cnp(subject={"pods": {}}), "spec.subject.pods.podSelector: is missing; write {} to select all"),
        (
            lambda: cnp(subject={"namespaces": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
            "spec.subject.namespaces.matchExpressions[0].operator: 'Near' is not an operator; use one of In, NotIn, Exists, DoesNotExist",
        ),
        (lambda: cnp(ingress=[{"action": "Deny"}]), "spec.ingress[0].from: is missing; write a list of 1 to 25"),
        (lambda: cnp(ingress=[{"action": "Deny", "from": []}]), "spec.ingress[0].from: has no items; write at least 1"),
        (lambda: cnp(ingress=[{}] * 26), "spec.ingress: has 26 items; write at most 25"),
        (lambda: cnp(ingress=[{"from": [EVERYWHERE]}]), "spec.ingress[0].action: is missing; write one of Accept, Deny, Pass"),
        (deny(name="n" * 101), "spec.egress[0].name: is 101 characters long; write at most 100"),
        (deny(to=[{"networks": ["10.0.0.0"]}]), "spec.egress[0].to[0].networks[0]: '10.0.0.0' is not an IP prefix; write one like 10.0.0.0/8 or fd00::/8"),
        (deny(to=[{"networks": ["010.0.0.0/8"]}]), "spec.egress[0].to[0].networks[0]: '010.0.0.0/8' is not a plain IP prefix (leading zeros are ignored); write 10.0.0.0/8"),
        (deny(to=[{"networks": ["10.0.0.0/8"] * 2}]), "spec.egress[0].to[0].networks[1]: '10.0.0.0/8' is there already; remove one of the two"),
        (deny(to=[{"domainNames": ["org"]}]), "spec.egress[0].to[0].domainNames[0]: 'org' is not a domain name; write one like www.example.org or *.example.org"),
        (deny(protocols=[{"tcp": {}}]), "spec.egress[0].protocols[0].tcp: is empty; write destinationPort, with range 1 to 65535 for all ports"),
        (
            deny(protocols=[{"tcp": {"destinationPort": {"range": {"start": 80, "end": 80}}}}]),
            "spec.egress[0].protocols[0].tcp.destinationPort.range: start 80 must be less than end 80; for a single port write number",
        ),
        (
            deny(to=[EVERYWHERE, {"nodes": {}}], protocols=[{"destinationNamedPort": "web"}]),
            "spec.egress[0].to[1]: nodes have no named ports; write the number of the port, or pods or namespaces as the peer",
        ),
        (lambda: anp(subject={"pods": {"podSelector": {}}}), "spec.subject.pods.namespaceSelector: is missing; write {} to select all"),
        (lambda: anp(egress=[{}] * 101), "spec.egress: has 101 items; write at most 100"),
        (lambda: banp("other"), "metadata.name: 'other' is not possible, there is only one object of this kind; call it default"),
        (
            lambda: banp(ingress=[{"action": "Pass", "from": [EVERYWHERE]}]),
            "spec.ingress[0].action: 'Pass' is none of the known values; use one of Allow, Deny",
        ),
    ],
)  # fmt: skip
def test_what_the_api_server_refuses(call: Any, text: str) -> None:
    assert message(call) == text


words = st.sampled_from(
    [
        *("tier", "priority", "subject", "ingress", "egress", "action", "from", "to", "name", "protocols", "ports", "namespaces", "pods"),
        *("nodes", "networks", "domainNames", "namespaceSelector", "podSelector", "matchLabels", "matchExpressions", "key", "operator"),
        *("values", "tcp", "destinationPort", "number", "range", "start", "end", "destinationNamedPort", "portNumber", "portRange"),
        *("namedPort", "protocol", "port"),
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(),
    st.sampled_from(["Admin", "Deny", "Allow", "TCP", "10.0.0.0/8", "::/0"]),
    words,
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.integers()), inner, max_size=4)),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([cnp, anp, banp]), st.dictionaries(words, anything, max_size=3), anything, anything)
def test_nothing_else_is_ever_raised(parse: Any, parts: Any, peer: Any, port: Any) -> None:
    rules = [
        {"action": action, "from": [peer], "to": [peer], "protocols": [port], "ports": [port]} for action in ("Accept", "Allow", "Deny")
    ]
    for rule in rules:
        with contextlib.suppress(InvalidObject):
            policy = parse(**{"ingress": [rule], "egress": [rule], **{key: value for key, value in parts.items() if key != "name"}})
            assert isinstance(policy, ClusterPolicy)
