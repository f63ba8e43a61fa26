"""Every scenario loads, and what it expects is what the API text says, as the oracle reads it."""

from __future__ import annotations

import pytest

from polyplane_conformance.actions import AddPod, ApplyClusterPolicy, ApplyPolicy
from polyplane_conformance.cast import HOSTS, NODE_ACTOR, plan
from polyplane_conformance.expectation import print_table
from polyplane_conformance.oracle import Connection, Oracle
from polyplane_conformance.scenario import Scenario, ScenarioError, load_scenarios, read_scenarios
from polyplane_conformance.world import World


@pytest.mark.parametrize("scenario", load_scenarios(), ids=str)
def test_written_expectations_are_what_the_oracle_says(scenario: Scenario) -> None:
    world = World(scenario, plan(actor for actor in scenario.actors if actor not in HOSTS))
    for step in scenario.steps:
        for action in step.actions:
            for write in world.perform(action):
                if isinstance(action, ApplyClusterPolicy | ApplyPolicy):
                    assert write.accepted is not action.refused
        oracle = Oracle(world.objects.values())
        for expectation in step.expectations:
            for service in expectation.services:
                for family in expectation.families:
                    said = {
                        (source, destination): oracle.ask(
                            Connection(
                                source=world.addresses(source)[family],
                                destination=world.addresses(destination)[family],
                                protocol=service.protocol,
                                port=service.port,
                            )
                        ).allowed
                        for source, destination in expectation.cells
                    }
                    assert print_table(said) == print_table(expectation.cells), f"{service} over IPv{family}"


def test_there_is_a_scenario_for_every_topic() -> None:
    assert {scenario.topic for scenario in load_scenarios()} >= {
        "blocks",
        "changes",
        "cluster-refusals",
        "cluster-rules",
        "isolation",
        "nodes",
        "outbound",
        "peers",
        "ports",
        "protocols",
        "refusals",
        "tiers",
        "union",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: one", "topic/slug|required field"),
        ("{name: a/b, description: d, steps: [{expect: [{lines: 'deny nobody -> x/a'}]}]}", "speaks of no pair"),
        ("{name: a/b, description: d, steps: [{expect: [{lines: 'forbid * -> x/a'}]}]}", "not of the form"),
        ("{name: a/b, description: d, steps: [{expect: [{lines: '', table: 'x/a'}]}]}", "either lines or a table"),
        ("{name: a/b, description: d, steps: [{expect: [{only: [x/q], lines: ''}]}]}", "nobody is called x/q"),
        ("{name: a/b, description: d, steps: [{expect: [{ask: TCP, lines: ''}]}]}", "no service"),
        ("{name: a/b, description: d, steps: [{do: [{paint: x/a}]}]}", "no known verb"),
        ("{name: a/b, description: d, steps: [{do: [{policy: x/a, specs: {}}]}]}", "unknown field"),
        ('{name: a/b, description: d, steps: [{expect: [{table: "-> x/a x/b\\nx/a . ?"}]}]}', "neither"),
    ],
)
def test_a_broken_scenario_is_an_error_that_says_where(text: str, problem: str) -> None:
    with pytest.raises(ScenarioError, match=f"here.yaml: .*({problem})"):
        list(read_scenarios(text, where="here.yaml"))


def test_a_pod_that_comes_back_has_addresses_of_its_own_again() -> None:
    text = "{name: a/b, description: d, cast: [x/a], pods: {x/h: {host_network: true}}, steps: []}"
    (scenario,) = read_scenarios(text, where="here.yaml")
    world = World(scenario, plan(("x/a", "x/h")))
    assert world.actor("x/h") == NODE_ACTOR
    world.perform(AddPod(pod="x/h"))
    assert world.actor("x/h") == "x/h"
    assert world.objects["Pod", "x", "h"]["status"]["podIP"] == world.plan.of("x/h")[4]
