"""The kit itself: clusters are the same for the same seed, results survive their file, and every figure of the page is measured."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from polyplane_bench import charts, core_case, layouts, packets, page
from polyplane_bench.cluster import Shape, SyntheticCluster
from polyplane_bench.figures import Figure, Result, Samples
from polyplane_bench.programs import Load
from polyplane_bench.settings import BACKENDS, Settings, Size

SHAPE = Shape(pods=600, policies=200, namespaces=20, local=30)


def test_a_cluster_is_the_same_for_the_same_seed() -> None:
    first, again, other = (list(SyntheticCluster(Shape(pods=50, policies=50, seed=seed)).objects()) for seed in (1, 1, 2))
    assert first == again != other


def test_as_many_pods_as_asked_for_are_local() -> None:
    for pods, local in ((1000, 110), (1000, 250), (600, 30), (10_000, 250)):
        cluster = SyntheticCluster(Shape(pods=pods, policies=0, local=local))
        assert sum(cluster.is_local(number) for number in range(pods)) == local


def test_events_of_a_round_undo_each_other_and_are_counted() -> None:
    found = core_case.run(SHAPE, rounds=2)
    assert found["facts"]["endpoints"] == SHAPE.local
    assert found["facts"]["policies"] > 0
    events = found["events"]
    # A pod that is nobody's peer is no work for the dataplane; one that is, is at most one operation for each set it is in.
    assert all(each["operations"] == 0 for kind in ("pod deleted", "pod added") for each in events[f"{kind}, nobody's peer"])
    assert all(1 <= each["operations"] == each["addresses"] / 2 for each in events["pod deleted, a peer"])
    assert any(each["operations"] for each in events["policy added, here"])
    assert not any(each["operations"] for each in events["policy added, elsewhere"])


def test_figures_survive_their_file(tmp_path: Path) -> None:
    samples = Samples()
    for value in range(1, 101):
        samples.add("time", "ms", value, backend="x")
    (figure,) = samples.figures()
    assert (figure.n, figure.median, figure.p25, figure.low, figure.high) == (100, 50.5, 25.75, 1, 100)
    result = Result(section="core", size="quick", machine={"cores": 2}, date="today", seconds=1, figures=(figure,))
    assert Result.read(result.write(tmp_path)) == result
    assert result.one("time", backend="x") == figure
    assert result.one("time", backend="y") is None


@pytest.mark.needs("matplotlib")
def test_a_chart_knows_what_it_was_drawn_from(tmp_path: Path) -> None:
    results = page.read(page.PUBLISHED)
    assert charts.draw(results, tmp_path)
    assert not list(charts.stale(results, tmp_path))
    name, result = next(iter(results.items()))
    altered = Result(section=name, size="other", machine=result.machine, date=result.date, seconds=0, figures=result.figures)
    assert list(charts.stale({name: altered}, tmp_path))


def test_one_figure_is_a_figure() -> None:
    assert Figure.of("x", "s", [3.0]).p99 == 3.0
    assert len(list(islice(SyntheticCluster(SHAPE).events(), 5))) == 5


def test_results_of_other_backends_are_kept() -> None:
    def result(backend: str, value: float, commit: str = "x") -> Result:
        figure = Figure.of("time", "s", [value], backend=backend)
        return Result(section="churn", size="full", machine={"commit": commit}, date="now", seconds=1, figures=(figure,))

    both = result("b", 2).beside(result("a", 1))
    assert [(figure.case["backend"], figure.median) for figure in both.figures] == [("a", 1), ("b", 2)]
    again = result("a", 3).beside(both)
    assert {figure.case["backend"]: figure.median for figure in again.figures} == {"a": 3, "b": 2}
    assert len(result("b", 2, "other code").beside(both).figures) == 1


def test_no_published_figure_is_impossible() -> None:
    """Nothing takes less than no time."""
    found = page.read(page.PUBLISHED)
    assert found
    assert not [(figure.measure, figure.case) for result in found.values() for figure in result.figures if figure.low < 0]


def test_no_layout_is_spared_a_load() -> None:
    """Alternatives stand beside the backends wherever there are policies; the queue's program looks nothing up, so one load will do."""
    loads: dict[str, set[Load]] = {}
    for variant in packets.variants(Settings(size=Size.FULL)):
        loads.setdefault(variant.layout, set()).add(variant.load)
    own = {layout: loads.pop(layout) for layout in BACKENDS}
    (every,) = {frozenset(met) for met in own.values()}
    assert {load.policies for load in every} == {0, 1, 1000, 10_000}
    assert {load.endpoints for load in every} == {10, 250}
    assert {load.addresses for load in every} == {0, 100_000}
    assert {load.spread for load in every if load.policies == 1000} == {True, False}
    assert loads.pop("none") == {Load()}
    assert loads.pop("queue to a program") == {Load(policies=1)}
    for variant in ("nft", "legacy"):  # the mark is about open connections, which differ where rules are many
        one_pod = Load(policies=1000, endpoints=10, spread=False)
        assert loads.pop(f"iptables-{variant}{layouts.BY_MARK}") == {Load(policies=1), one_pod}
    assert loads.keys() >= {f"{name}, {variant}" for name in ("linear chains", "ipsets and chains") for variant in ("nft", "legacy")}
    assert "conjunctive flows" in loads
    same_rules = {load for load in every if load.policies < 2 and load != Load(policies=1, addresses=load.addresses)}
    assert all(met == every - same_rules for met in loads.values())
