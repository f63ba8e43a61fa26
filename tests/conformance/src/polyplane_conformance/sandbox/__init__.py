"""Sandboxes: a small cluster of network namespaces on this machine, built in about a second, removed for certain.

>>> from polyplane_conformance.sandbox import Sandbox, Topology
>>> with Sandbox.build(Topology.grid()) as sandbox:                             # doctest: +SKIP
...     print(sandbox.matrix())

`topology` says what there is, `wiring` how it is connected (pure text), `orders` what can be asked of it, `namespaces` names,
makes and sweeps, `sandbox` puts it together with the prober of `polyplane_conformance.probe`. Needs root and iproute2; ``nft`` or
``iptables`` for services, ``tcpdump`` for captures, Open vSwitch for pods on bridges (`bridges`).
"""

from polyplane_conformance.sandbox.barrage import Barrage, BarrageReport, Shot
from polyplane_conformance.sandbox.namespaces import SandboxError, sweep
from polyplane_conformance.sandbox.sandbox import Sandbox
from polyplane_conformance.sandbox.services import Service, Translator
from polyplane_conformance.sandbox.topology import DEFAULT_PORTS, HostSpec, NodeSpec, PodSpec, Port, Topology, TopologyError, Wiring

__all__ = [
    "DEFAULT_PORTS",
    "Barrage",
    "BarrageReport",
    "HostSpec",
    "NodeSpec",
    "PodSpec",
    "Port",
    "Sandbox",
    "SandboxError",
    "Service",
    "Shot",
    "Topology",
    "TopologyError",
    "Translator",
    "Wiring",
    "sweep",
]
