"""Pods in a sandbox and what may reach what, for the tests of this backend."""

from __future__ import annotations

from dataclasses import replace

from backend_programs import IN, OUT, address_set, endpoint, isolated, policy, program, rule

from polyplane.ir.program import EndpointId, Options, Program
from polyplane_conformance.sandbox import Sandbox


def program_of(sandbox: Sandbox, options: Options = Options()) -> Program:  # noqa: B008  # frozen
    """Every pod is isolated both ways; x/b may open connections to x/a and to its node, and that is all."""
    topology = sandbox.topology
    inward, outward = policy(IN, rule("in", IN, 0, sets=("x/b",))), policy(OUT, rule("out", OUT, 0, sets=("node", "x/a")))
    pods = [
        replace(
            endpoint(
                pod.name,
                pod.host_interface,
                *pod.addresses,
                ingress=isolated(IN, *([inward] if pod.id == "x/a" else [])),
                egress=isolated(OUT, *([outward] if pod.id == "x/b" else [])),
            ),
            id=EndpointId(pod.id),
        )
        for pod in topology.pods
    ]
    sets = [
        address_set(name, *addresses)
        for name, addresses in [("node", topology.node.addresses), *((pod.id, pod.addresses) for pod in topology.pods)]
    ]
    return program(*pods, inward, outward, *sets, nodes=topology.node.addresses, options=options)
