from __future__ import annotations

import pytest
from backend_programs import IN, endpoint, isolated, policy, program, rule

from polyplane.ir.cidr import Cidr
from polyplane.ir.evaluate import Packet, Verdict, endpoint_of, evaluate

PACKET = Packet(source=Cidr.parse("192.0.2.1"), destination=Cidr.parse("10.1.0.1"), protocol=6, port=80)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_an_address_that_two_claim_is_the_first_ones_by_id(names: str) -> None:
    """Whichever of them came first; so have it the backends, which must agree with this."""
    other = policy(IN, rule("other", IN, 0, protocol=17))
    claims = {"a": endpoint("a", None, "10.1.0.1", ingress=isolated(IN, other)), "b": endpoint("b", None, "10.1.0.1")}
    shared = program(*(claims[name] for name in names), other)
    assert endpoint_of(shared, PACKET.destination) is claims["a"]
    assert evaluate(shared, PACKET).verdict is Verdict.DENY
    assert evaluate(program(claims["b"]), PACKET).verdict is Verdict.ALLOW
