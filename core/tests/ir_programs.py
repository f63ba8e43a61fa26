"""Random programs and packets of a small vocabulary, so that rules meet; `ir_strategies` has the hostile ones."""

from __future__ import annotations

from hypothesis import strategies as st

from polyplane.ir.cidr import Cidr, Family
from polyplane.ir.evaluate import Packet
from polyplane.ir.members import Members
from polyplane.ir.program import (
    Action,
    AddressSet,
    Direction,
    Endpoint,
    EndpointId,
    IcmpType,
    Isolation,
    Match,
    Origin,
    PeerTerm,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    SetId,
    Stack,
    Tier,
    TierEnd,
)

HOSTS = [Cidr.parse(f"10.0.0.{i}") for i in range(6)] + [Cidr.parse(f"fd00::{i}") for i in range(4)]
PREFIXES = [Cidr.parse(text) for text in ("10.0.0.0/8", "10.0.0.0/30", "10.0.0.4/31", "0.0.0.0/0", "fd00::/64", "fd00::2/127", "::/0")]
PORTS = [0, 1, 79, 80, 81, 443, 65535]
SET_IDS = [SetId(f"s{i}") for i in range(4)]
IDS = st.integers(1, 2**32 - 1)


def port_ranges() -> st.SearchStrategy[tuple[PortRange, ...]]:
    pair = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda ports: PortRange(min(ports), max(ports)))
    return st.lists(pair, max_size=2).map(tuple)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    protocol = draw(st.sampled_from([None, None, 1, 6, 6, 17, 58, 132, 47]))
    ports = draw(st.booleans()) and protocol in (6, 17, 132)
    icmp = st.lists(st.builds(IcmpType, st.sampled_from([0, 8, 128]), st.sampled_from([None, 0, 1])), max_size=2).map(tuple)
    terms = st.builds(PeerTerm, st.sets(st.sampled_from(SET_IDS), max_size=2).map(lambda ids: tuple(sorted(ids))), st.booleans())
    return Match(
        family=draw(st.sampled_from([None, None, None, Family.IPV4, Family.IPV6])),
        protocol=protocol,
        not_protocol=draw(st.sampled_from([None, None, 6, 17])) if protocol is None else None,
        peer=tuple(draw(st.lists(terms, max_size=2))),
        ports=draw(port_ranges()) if ports else (),
        not_ports=draw(port_ranges()) if ports else (),
        source_ports=draw(port_ranges()) if ports else (),
        not_source_ports=draw(port_ranges()) if ports else (),
        icmp=draw(icmp) if protocol in (1, 58) else (),
        not_icmp=draw(icmp) if protocol in (1, 58) else (),
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    sets = {
        set_id: AddressSet(id=set_id, label=f"pods {set_id}", members=Members(draw(st.sets(st.sampled_from(HOSTS + PREFIXES), max_size=5))))
        for set_id in SET_IDS
    }
    policies: dict[PolicyId, Policy] = {}
    for number in range(draw(st.integers(1, 5))):
        direction = Direction.INGRESS if number % 2 else Direction.EGRESS
        rules = tuple(
            Rule(
                id=draw(IDS),
                action=draw(st.sampled_from(Action)),
                match=draw(matches()),
                origin=Origin(kind="Test", namespace="x", name=f'p"{number}', direction=direction, index=index),
            )
            for index in range(draw(st.integers(0, 4)))
        )
        policy_id = PolicyId(f"p{number}")
        policies[policy_id] = Policy(id=policy_id, direction=direction, rules=rules)
    endpoints = {}
    for number in range(draw(st.integers(1, 3))):
        endpoint_id = EndpointId(f"x/e{number}")
        endpoints[endpoint_id] = Endpoint(
            id=endpoint_id,
            interface=draw(st.sampled_from([None, f"veth{number}"])),
            addresses=(HOSTS[number], HOSTS[6 + number]),
            ingress=draw(stacks([key for key, policy in policies.items() if policy.direction is Direction.INGRESS])),
            egress=draw(stacks([key for key, policy in policies.items() if policy.direction is Direction.EGRESS])),
        )
    node = frozenset(draw(st.sets(st.sampled_from(HOSTS), max_size=1)))
    return Program(endpoints=endpoints, policies=policies, sets=sets, node_addresses=node)


@st.composite
def stacks(draw: st.DrawFn, ids: list[PolicyId]) -> Stack:
    tiers = []
    for number in range(draw(st.integers(0, 3))):
        policies = tuple(draw(st.lists(st.sampled_from(ids), unique=True, max_size=3))) if ids else ()
        end = draw(st.sampled_from(TierEnd))
        origin = Origin(kind="Test", namespace="x", name="isolates", direction=Direction.INGRESS)
        isolation = Isolation(id=draw(IDS), origins=(origin,)) if end is TierEnd.DENY else None
        tiers.append(Tier(name=f"t{number}", policies=policies, end=end, isolation=isolation, exempts_self=draw(st.booleans())))
    return tuple(tiers)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    family = draw(st.sampled_from([4, 6]))
    address = st.sampled_from(
        [host for host in HOSTS if host.family == family] + [Cidr.parse("192.0.2.1" if family == 4 else "2001:db8::1")]
    )
    protocol = draw(st.sampled_from([1, 6, 17, 58, 132, 47, 4]))
    ported = protocol in (6, 17, 132)
    return Packet(
        source=draw(address),
        destination=draw(address),
        protocol=protocol,
        source_port=draw(st.sampled_from(PORTS)) if ported else 0,
        port=draw(st.sampled_from(PORTS)) if ported else 0,
        icmp=IcmpType(draw(st.sampled_from([0, 3, 8, 128])), draw(st.sampled_from([0, 1]))) if protocol in (1, 58) else None,
    )
