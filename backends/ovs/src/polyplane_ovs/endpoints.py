"""`endpoint_flows`: everything that one endpoint needs besides its decisions. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import Endpoint
from polyplane_ovs import fields
from polyplane_ovs.flows import Flow
from polyplane_ovs.owned import Stage
from polyplane_ovs.pipeline import DROP, EXEMPT, NOT_SUBJECT, UNTAGGED, Pipeline
from polyplane_ovs.ports import Attachment, link_local

_NO_MAC: Final = "00:00:00:00:00:00"
_ANY_LINK_LOCAL: Final = "fe80::/10"
#: ICMPv6 types that only routers send (RFC 4861), and the advertisement, which only passes for what is one's own.
_ROUTERS_ONLY: Final = (134, 137)
_SOLICITATION: Final = 135
_ADVERTISEMENT: Final = 136
_ROUTER_SOLICITATION: Final = 133
#: A codepoint of the pool for local use (RFC 2474, section 6) that nobody is known to use.
_MARK: Final = 59


@dataclass(frozen=True, slots=True)
class SelfDecision:
    """Stacks that decide about traffic from ``source`` to ``destination``, both the endpoint's own; 0: always allowed."""

    source: Cidr
    destination: Cidr
    egress: int
    ingress: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An endpoint with all that its flows depend on. Stacks are 64-bit ids, 0 where it is not subject to policy."""

    endpoint: Endpoint
    attachment: Attachment | None
    egress: int
    ingress: int
    own: tuple[SelfDecision, ...] = ()
    node_addresses: tuple[Cidr, ...] = ()
    service_cidrs: tuple[Cidr, ...] = ()


def endpoint_flows(pipeline: Pipeline, place: Place) -> Iterator[Flow]:
    """Yield the flows of an endpoint: what it may send, and which decisions apply to what comes from it and goes to it."""
    if place.attachment is not None:
        yield from _guard(pipeline, place.endpoint, place.attachment)
        # an endpoint whose port nobody names goes by its addresses, from whatever workload's port they come
        for cidr in place.endpoint.addresses:
            yield from pipeline.reserved(cidr)
    yield from _near(pipeline, place)
    yield from _far(pipeline, place)
    for own in place.own:
        match = [*fields.address(fields.SOURCE, own.source), *fields.address(fields.DESTINATION, own.destination)[1:]]
        stacks = (fields.set_wide(fields.EGRESS_STACK, own.egress), fields.set_wide(fields.INGRESS_STACK, own.ingress))
        yield pipeline.flow(Stage.SELF, 10, match, (*stacks, pipeline.goto(Stage.EGRESS_CLASS)))
    if any(own.egress or own.ingress for own in place.own):
        yield from _through_services(pipeline, place)


def _through_services(pipeline: Pipeline, place: Place) -> Iterator[Flow]:
    """Yield what recognises an endpoint that calls itself through a service, where that is not always allowed.

    The node gives such a packet its own address, for a pod drops packets from itself. So on its way to the service it gets a mark
    in its DSCP, the only part that comes back unchanged; with the mark, the node's address means the endpoint itself.
    """
    for cidr in place.service_cidrs:
        to_service = (*fields.address(fields.DESTINATION, cidr), fields.flags(0, fields.REPLY))
        actions = (f"set_field:{_MARK}->ip_dscp", pipeline.goto(Stage.INGRESS_CLASS))
        if place.egress:
            yield pipeline.flow(Stage.EGRESS_CLASS, EXEMPT + 1, (*fields.wide(fields.EGRESS_STACK, place.egress), *to_service), actions)
            continue
        # no egress of its own to go by
        for address in dict.fromkeys(own.source for own in place.own if own.source.family == cidr.family):
            match = (*fields.wide(fields.EGRESS_STACK, 0), *fields.address(fields.SOURCE, address)[1:], *to_service)
            yield pipeline.flow(Stage.EGRESS_CLASS, NOT_SUBJECT + 1, match, actions)
    for own in place.own:
        for node in place.node_addresses:
            if own.source != own.destination or node.family != own.source.family:
                continue
            match = (
                *fields.address(fields.SOURCE, node),
                *fields.address(fields.DESTINATION, own.destination)[1:],
                f"nw_tos={_MARK << 2}",
                fields.flags(fields.TRUSTED, fields.TRUSTED | fields.REPLY),
            )
            yield pipeline.flow(
                Stage.SELF,
                20,
                match,
                (
                    "set_field:0->ip_dscp",
                    fields.set_address(fields.SOURCE, own.source),
                    fields.set_wide(fields.EGRESS_STACK, own.egress),
                    fields.set_wide(fields.INGRESS_STACK, own.ingress),
                    pipeline.goto(Stage.EGRESS_CLASS),
                ),
            )


def trusted_flow(pipeline: Pipeline, port: str) -> Flow:
    """Return the flow for a port of the node's own."""
    start = f"set_field:{fields.number(fields.TRUSTED)}->reg{fields.FLAGS}"
    return pipeline.flow(Stage.PORTS, 10, (f"in_port={port}",), (start, pipeline.goto(Stage.KIND)))


def stranger_flow(pipeline: Pipeline, port: str) -> Flow:
    """Return the flow for a workload's port that belongs to no endpoint: it is free, but for the endpoints' addresses."""
    start = f"set_field:0->reg{fields.FLAGS}"
    return pipeline.flow(Stage.PORTS, 5, (f"in_port={port}",), (start, pipeline.goto(Stage.STRANGERS)))


def _guard(pipeline: Pipeline, endpoint: Endpoint, attachment: Attachment) -> Iterator[Flow]:
    """Yield what the endpoint may send: packets from its own addresses, and claims to be nobody else."""
    mac = attachment.mac
    base = [f"in_port={attachment.port}", UNTAGGED, *([f"dl_src={mac}"] if mac else [])]
    accept = (f"set_field:0->reg{fields.FLAGS}", pipeline.goto(Stage.KIND))

    def may(priority: int, *match: str) -> Flow:
        return pipeline.flow(Stage.PORTS, priority, [*base, *match], accept)

    hardware = [f"arp_sha={mac}"] if mac else []
    local = link_local(mac) if mac else _ANY_LINK_LOCAL
    own6 = [cidr.address_text for cidr in endpoint.addresses if cidr.family == 6]
    for cidr in endpoint.addresses:
        yield may(10, *fields.source_match(cidr))
        if cidr.family == 4:
            yield may(10, "arp", f"arp_spa={cidr}", *hardware)
    # RFC 5227: who probes for an address does not claim it
    yield may(10, "arp", "arp_spa=0.0.0.0", *hardware)
    yield may(10, "ipv6", f"ipv6_src={local}")
    for number in (*_ROUTERS_ONLY, _SOLICITATION, _ADVERTISEMENT):
        yield pipeline.flow(Stage.PORTS, 20, (f"in_port={attachment.port}", "icmp6", f"icmp_type={number}"), DROP)
    yield may(30, "icmp6", f"icmp_type={_ROUTER_SOLICITATION}", "ipv6_src=::")
    layers = (_NO_MAC, mac) if mac else (None,)
    for target in (*own6, local):
        for layer in layers:
            given = [f"nd_tll={layer}"] if layer else []
            yield may(30, "icmp6", f"icmp_type={_ADVERTISEMENT}", f"nd_target={target}", *given)
    for source in (*own6, local, "::"):
        for layer in layers:
            given = [f"nd_sll={layer}"] if layer else []
            yield may(30, "icmp6", f"icmp_type={_SOLICITATION}", f"ipv6_src={source}", *given)


def _near(pipeline: Pipeline, place: Place) -> Iterator[Flow]:
    """Yield what is decided about packets that come from the endpoint: its egress, or for replies its ingress."""
    on = pipeline.goto(Stage.FAR)
    opens = _opening_from(place)
    answers = [fields.set_wide(fields.INGRESS_STACK, place.ingress)] if place.ingress else []
    both = fields.TRUSTED | fields.REPLY
    # the guard has seen to it that this is the endpoint's own address, so it tells as much as the port
    for cidr in place.endpoint.addresses:
        source = fields.source_match(cidr)
        if opens:
            yield pipeline.flow(Stage.NEAR, 10, (*source, fields.flags(0, both)), (*opens, on))
        # from a trusted port: the node has routed it, or translated its destination
        returned = fields.set_flags(fields.RETURNED)
        yield pipeline.flow(Stage.NEAR, 10, (*source, fields.flags(fields.TRUSTED, both)), (*opens, returned, on))
        if answers:
            yield pipeline.flow(Stage.NEAR, 10, (*source, fields.flags(fields.REPLY)), (*answers, on))
    if place.attachment is not None and not place.attachment.shared:
        local = (f"in_port={place.attachment.port}", "ipv6", f"ipv6_src={_ANY_LINK_LOCAL}")
        for reply, actions in ((0, opens), (fields.REPLY, answers)):
            if actions:
                yield pipeline.flow(Stage.NEAR, 20, (*local, fields.flags(reply, fields.REPLY)), (*actions, on))


def _opening_from(place: Place) -> list[str]:
    stack = [fields.set_wide(fields.EGRESS_STACK, place.egress)] if place.egress else []
    return [*stack, fields.set_flags(fields.NEAR_INGRESS)] if place.ingress else stack


def _far(pipeline: Pipeline, place: Place) -> Iterator[Flow]:
    """Yield what is decided about packets that go to the endpoint. Forwarding goes by MAC address, so that comes first."""
    on = pipeline.goto(Stage.SELF)
    opens = [fields.set_wide(fields.INGRESS_STACK, place.ingress)] if place.ingress else []
    if place.egress:
        opens.append(fields.set_flags(fields.FAR_EGRESS))
    answers = [fields.set_wide(fields.EGRESS_STACK, place.egress)] if place.egress else []
    destinations = [(10, fields.destination_match(cidr)) for cidr in place.endpoint.addresses]
    if place.attachment is not None and place.attachment.mac is not None and not place.attachment.shared:
        destinations.append((20, [f"dl_dst={place.attachment.mac}"]))
    for priority, match in destinations:
        if opens:
            yield pipeline.flow(Stage.FAR, priority, (*match, fields.flags(0, fields.REPLY)), (*opens, on))
        if answers:
            yield pipeline.flow(Stage.FAR, priority, (*match, fields.flags(fields.REPLY)), (*answers, on))
