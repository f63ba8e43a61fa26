"""A private ovs-vswitchd with four pods: what tests with a real switch share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from backend_programs import IN, address_set, endpoint, isolated, policy, program, rule

from polyplane.ir.program import Options, PortRange, Program
from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.sandbox import Sandbox
from polyplane_ovs.backend import OvsBackend


def backend_of(sandbox: Sandbox, **options: object) -> OvsBackend:
    return OvsBackend({**sandbox.backend_options(), **options})


def door(sandbox: Sandbox, *friends: str, port: int = 80, protocol: int = 6, options: Options = Options()) -> Program:  # noqa: B008 (frozen)
    """A pod x/a that only its friends may reach, on one port, and the other pods without policy."""
    allow = policy(IN, rule("door", IN, 0, sets=("friends",), protocol=protocol, ports=(PortRange(port, port),)))
    places = {pod.id: pod for pod in sandbox.topology.pods}
    addresses = [address for friend in friends for address in places[friend].addresses]
    endpoints = [
        replace(endpoint("n", pod.host_interface, *pod.addresses, ingress=isolated(IN, allow) if pod.name == "a" else ()), id=pod.id)  # type: ignore[arg-type]
        for pod in places.values()
    ]
    return program(*endpoints, allow, address_set("friends", *addresses), nodes=sandbox.topology.node.addresses, options=options)


def outcomes(sandbox: Sandbox, target: str = "x/a", service: str = "tcp/80") -> Mapping[str, bool]:
    """Which pods reach the target, over both IP versions alike."""
    probes = [
        Probe(source=source, destination=target, traffic=Traffic.parse(service, family)) for source in ("x/b", "x/c") for family in (4, 6)
    ]
    results = sandbox.probe(probes)
    assert not [result for result in results if result.outcome is Outcome.BROKEN], results
    found: dict[str, set[bool]] = {}
    for probe, result in zip(probes, results, strict=True):
        found.setdefault(probe.source, set()).add(result.allowed)
    assert all(len(verdicts) == 1 for verdicts in found.values()), found
    return {source: verdicts.pop() for source, verdicts in found.items()}


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "in vain"
        time.sleep(0.01)


def flows(sandbox: Sandbox) -> int:
    """How many flows the bridge has, seen by another call than the backend's."""
    return sandbox.run("node-1", ["ovs-ofctl", "dump-flows", "br-int"]).count("actions=")
