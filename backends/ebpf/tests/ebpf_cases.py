"""A client and a server on one node, for the tests of this backend."""

from __future__ import annotations

from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.program import (
    EMPTY,
    Action,
    Direction,
    Endpoint,
    EndpointId,
    IcmpType,
    Isolation,
    Match,
    Options,
    Origin,
    Policy,
    PolicyId,
    PortRange,
    Program,
    Rule,
    Stack,
    Tier,
    TierEnd,
    digest,
)
from polyplane.reconcile.diff import diff

#: Maps small enough to be made often.
SMALL = {"max_rows": 4096, "max_hosts": 4096, "max_prefixes": 4096, "max_connections": 4096, "max_counters": 1024, "max_paths": 1024}

CLIENT, SERVER, NODE = (Cidr.parse(text) for text in ("10.0.0.1", "10.0.0.2", "172.16.0.1"))
CLIENT6, SERVER6 = Cidr.parse("fd00::1"), Cidr.parse("fd00::2")
ISOLATION = 99


def origin(direction: Direction) -> Origin:
    return Origin(kind="Test", namespace="x", name="t", direction=direction, index=0)


def made(*matches: Match, options: Options = Options(), log: int = 0) -> Program:  # noqa: B008  # frozen
    """The server is isolated and admits these; the client is free."""
    where = Direction.INGRESS
    rules = tuple(Rule(id=number, action=Action.ALLOW, match=match, origin=origin(where)) for number, match in enumerate(matches, 1))
    if log:
        rules = (Rule(id=log, action=Action.LOG, match=Match(), origin=origin(where)), *rules)
    policy = Policy(id=PolicyId(digest(repr(rules))), direction=where, rules=rules)
    isolation = Isolation(id=ISOLATION, origins=(origin(where),))
    tiers: Stack = (Tier(name="t", policies=(policy.id,), end=TierEnd.DENY, isolation=isolation, exempts_self=True),)
    endpoints = (
        Endpoint(id=EndpointId("x/client"), addresses=(CLIENT, CLIENT6)),
        Endpoint(id=EndpointId("x/server"), addresses=(SERVER, SERVER6), ingress=tiers),
    )
    return Program(
        endpoints={endpoint.id: endpoint for endpoint in endpoints},
        policies={policy.id: policy},
        node_addresses=frozenset({NODE}),
        options=options,
    )


WEB = Match(protocol=6, ports=(PortRange(80, 80),))
DNS = Match(protocol=17, ports=(PortRange(53, 53),))
ECHO = Match(protocol=1, icmp=(IcmpType(8),))


def start(program: Program) -> Delta:
    return diff(EMPTY, program)
