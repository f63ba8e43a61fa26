from __future__ import annotations

from polyplane.plugins import load_backend
from polyplane_conformance.cast import NODE
from polyplane_conformance.control import ControlPlane, writes_of
from polyplane_conformance.evidence import MOST, evidence, involved
from polyplane_conformance.expectation import Service
from polyplane_conformance.model import world_of
from polyplane_conformance.scenario import load_scenarios

TEXT = """
add element t hosts { 10.0.0.1 : jump d_0123456789 }
add element t hosts { 10.0.0.10 : jump d_9999999999 }
add rule t d_0123456789 tcp dport 80 accept
add rule t d_9999999999 drop
"""


def test_statements_that_name_an_address_and_what_they_refer_to() -> None:
    assert list(involved(TEXT, ["10.0.0.1"])) == [TEXT.splitlines()[1], TEXT.splitlines()[3]]
    assert list(involved("a 10.0.0.1\n" * (MOST + 3), ["10.0.0.1"]))[-1] == "… and 3 more"


def test_every_witness_is_heard() -> None:
    (scenario,) = (one for one in load_scenarios() if one.name == "peers/pod-of-own-namespace")
    world = world_of(scenario)
    control, backend = ControlPlane((NODE,)), load_backend("nftables", {})
    control.feed(writes_of(world.objects.values()))
    for action in scenario.steps[0].actions:
        control.feed(world.perform(action))
    lines = evidence(world, backend, control.programs[NODE], (("y/a", "x/a"), Service("TCP", 80), 4))
    assert {line.partition(":")[0] for line in lines} == {"oracle", "evaluate", "native"}
    assert any("isolated by x/" in line for line in lines)
    assert any(world.addresses("x/a")[4] in line for line in lines if line.startswith("native"))
