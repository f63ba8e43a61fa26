from __future__ import annotations

import pytest

from polyplane_conformance.foresee import foresee, print_scenario
from polyplane_conformance.generate import ACTORS, PEERS, PORTS, TARGETS, choose, generate
from polyplane_conformance.scenario import Scenario, read_scenarios


def test_there_are_hundreds_and_each_has_a_name_of_its_own() -> None:
    cases = generate(0)
    assert len(cases) > 300
    assert len({case.name for case in cases}) == len(cases)
    assert sum(len(case.steps) for case in cases) > 500


def test_the_same_seed_gives_the_same_and_another_others() -> None:
    generate.cache_clear()
    again = generate(7)
    generate.cache_clear()
    assert generate(7) == again
    assert {case.name for case in generate(8)} != {case.name for case in again}
    systematic = {case.name for case in again} & {case.name for case in generate(8)}
    assert len(systematic) == 2 * (2 * len(TARGETS) + len(PEERS) + len(PORTS))


def test_tags_choose() -> None:
    chosen = choose(generate(0), ("ingress", "peer-block-except", "port-name"))
    assert chosen
    assert all("except" in str(case.steps) for case in chosen)
    assert choose(generate(0), ("sctp",)) == [case for case in generate(0) if "sctp" in case.tags]


@pytest.mark.parametrize(
    "case", [one for one in generate(0) if one.name in ("generated/actions-0-005", "generated/peers-egress-block-but")], ids=str
)
def test_what_the_oracle_foresees_can_be_written_and_read(case: Scenario) -> None:
    foreseen = foresee(case, ACTORS)
    (read,) = read_scenarios(print_scenario(foreseen), where="here")
    assert read.steps == foreseen.steps
    assert read.pods == foreseen.pods
    assert read.namespaces == foreseen.namespaces
    wanted = {passes for step in read.steps for expectation in step.expectations for passes in expectation.cells.values()}
    assert wanted == {True, False}
