"""The pytest plugin: which backends are on trial, in which tiers, on which scenarios and foreign cases.

It does nothing to tests that are not the suite's. A test of the suite says its tier by the marker ``tier`` and asks for
``scenario``, ``generated``, ``case`` (a foreign one) or ``backend``; this module supplies them, applies the gaps that the backend states,
and collects a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polyplane_conformance.features import OPERATION, api_of, features_of
from polyplane_conformance.gaps import Gap, GapError, Gaps, behaviour_name, behaviours, load_gaps
from polyplane_conformance.jobs import shards
from polyplane_conformance.needs import missing, require
from polyplane_conformance.progress import Diary, Watcher
from polyplane_conformance.report import REPORT, Entry, Report, Status
from polyplane_conformance.results import Outcome
from polyplane_conformance.scenario import TIERS, Scenario, ScenarioError, load_scenarios, read_scenarios

if TYPE_CHECKING:
    from polyplane_conformance.rig import Rigs
    from polyplane_conformance.stage import Stage

_OUTCOME: Final = pytest.StashKey[Outcome]()
_GAP: Final = pytest.StashKey[Gap]()

#: Judges an outcome: passes, fails with what disagrees, or skips because of a gap.
Judge = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend on trial: its name, the options it is made with, the gaps it states."""

    name: str
    options: dict[str, object]
    gaps: Gaps
    #: How it is reported where one backend is on trial several times, with other options.
    label: str = ""

    def __str__(self) -> str:
        return self.label or self.name


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options; all begin with ``--polyplane-``."""
    group = parser.getgroup("polyplane", "polyplane conformance suite")
    group.addoption("--polyplane-backend", action="append", metavar="NAME[:KEY=VALUE,…]", help="a backend on trial (again for several)")
    group.addoption("--polyplane-option", action="append", default=[], metavar="KEY=VALUE", help="an option for the backend on trial")
    group.addoption(
        "--polyplane-tier", action="append", choices=TIERS, help="only this tier (again for several); default: all that can run"
    )
    group.addoption("--polyplane-scenario", metavar="GLOB", help="only scenarios and behaviours whose name fits")
    group.addoption("--polyplane-file", type=Path, metavar="FILE", help="play the scenarios of this file instead of the suite's own")
    group.addoption("--polyplane-generated", action="store_true", help="play all generated cases, with packets too")
    group.addoption(
        "--polyplane-tag", action="append", default=[], metavar="TAG", help="only generated cases with this tag (again: with all)"
    )
    group.addoption("--polyplane-seed", type=int, default=0, metavar="N", help="seed of the generated cases")
    group.addoption("--polyplane-corpus", type=Path, metavar="DIR", help="also run the foreign cases in this directory")
    group.addoption("--polyplane-gaps", type=Path, metavar="FILE", help="the backend's gaps, if not in its own conformance.toml")
    group.addoption(
        "--polyplane-golden", type=Path, metavar="DIR", help="golden files, if not in the backend's own tests/golden/conformance"
    )
    group.addoption(
        "--polyplane-source",
        choices=("direct", "kubernetes"),
        default="direct",
        help="netns tier: give the cluster's objects to the core straight, or by an API server and the source that follows it",
    )
    group.addoption("--polyplane-update-golden", action="store_true", help="write the golden files instead of comparing with them")
    group.addoption(
        "--polyplane-shard", metavar="I/N", help="only the I-th of N parts, of tests that can share a sandbox as far as possible"
    )
    group.addoption("--polyplane-pcap", type=Path, metavar="DIR", help="record the packets of each scenario on the node (needs tcpdump)")
    group.addoption("--polyplane-diary", type=Path, metavar="FILE", help="write down in FILE how far the run is, a line of JSON a test")
    group.addoption("--polyplane-report", type=Path, metavar="FILE", help="write a report, YAML or (.json) JSON")
    parser.addini(
        "polyplane_options", "options for the backends on trial, KEY=VALUE; --polyplane-option adds to them", type="args", default=[]
    )
    parser.addini("polyplane_backends", "backends on trial when no --polyplane-backend is given", type="args", default=["memory"])


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and begin the report."""
    config.addinivalue_line("markers", "tier(name): the tier of a test of the conformance suite: model, render or netns")
    config.addinivalue_line("markers", "without_packets: only for backends that no packet passes through")
    config.addinivalue_line("markers", "netns: sends real packets between network namespaces; needs root")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.stash[REPORT] = Report()
    if (diary := config.getoption("--polyplane-diary")) is not None:
        config.pluginmanager.register(Watcher(Diary(diary)))


def backends(config: pytest.Config) -> list[Backend]:
    """Return the backends on trial."""
    names = config.getoption("--polyplane-backend") or config.getini("polyplane_backends")
    common = [*config.getini("polyplane_options"), *config.getoption("--polyplane-option")]
    made = []
    for label in names:
        name, _, own = label.partition(":")
        options = dict(text.partition("=")[::2] for text in (*common, *filter(None, own.split(","))))
        made.append(Backend(name, dict(options), load_gaps(name, config.getoption("--polyplane-gaps")), label))
    return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the suite's tests their backends, scenarios and foreign cases."""
    marker = metafunc.definition.get_closest_marker("tier")
    if marker is None:
        return
    tier: str = marker.args[0]
    config = metafunc.config
    on = config.getoption("--polyplane-tier") is None or tier in config.getoption("--polyplane-tier")
    nobody = ""
    if "backend" in metafunc.fixturenames:
        still = metafunc.definition.get_closest_marker("without_packets") is not None
        chosen = [backend for backend in backends(config) if on and _has_use(config, backend, tier, still=still)]
        nobody = "" if chosen else f"no backend for the {tier} tier was chosen; see --polyplane-backend"
        _parametrize(metafunc, "backend", chosen, nobody, scope="session")
    on = on and not nobody
    if "scenario" in metafunc.fixturenames:
        scenarios = [scenario for scenario in _scenarios(config) if on and tier in scenario.tiers and _wanted(config, scenario.name)]
        _parametrize(metafunc, "scenario", scenarios, nobody or "no scenario was chosen")
    if "generated" in metafunc.fixturenames:
        cases = [case for case in _generated(config, tier) if on and _wanted(config, case.name)]
        _parametrize(metafunc, "generated", cases, "no generated case was asked for; see --polyplane-generated")
    if "case" in metafunc.fixturenames:
        _parametrize(
            metafunc, "case", [case for case in _corpus(config) if on and _wanted(config, case.name)], "no --polyplane-corpus was given"
        )


def _has_use(config: pytest.Config, backend: Backend, tier: str, *, still: bool) -> bool:
    """Whether a test of the tier is for this backend; ``still``: it is for those without packets."""
    if backend.name == "memory":  # keeps golden files only for who asks, and what it holds is checked with every model
        return tier == "render" and not still and backend.name in (config.getoption("--polyplane-backend") or ())
    return backend.gaps.packets is not still if tier == "netns" or still else True


def _wanted(config: pytest.Config, name: str) -> bool:
    pattern = config.getoption("--polyplane-scenario")
    return pattern is None or fnmatchcase(name, pattern)


def _scenarios(config: pytest.Config) -> tuple[Scenario, ...]:
    """The suite's own scenarios, or those of a file."""
    file = config.getoption("--polyplane-file")
    if file is None:
        return load_scenarios()
    try:
        return tuple(read_scenarios(file.read_text(encoding="utf-8"), where=str(file)))
    except (OSError, ScenarioError) as error:
        raise pytest.UsageError(str(error)) from error


def _generated(config: pytest.Config, tier: str) -> list[Scenario]:
    """All generated cases if they are asked for; otherwise every eighth in the model tier, none with packets, none beside a file."""
    from polyplane_conformance.generate import choose, generate

    cases = choose(generate(config.getoption("--polyplane-seed")), config.getoption("--polyplane-tag"))
    if config.getoption("--polyplane-generated"):
        return cases
    return cases[::8] if tier == "model" and config.getoption("--polyplane-file") is None else []


def _corpus(config: pytest.Config) -> tuple[Scenario, ...]:
    directory = config.getoption("--polyplane-corpus")
    if directory is None:
        return ()
    from polyplane_conformance.corpus import load_corpus

    try:
        return load_corpus(directory)
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


def _parametrize(
    metafunc: pytest.Metafunc, name: str, values: list[Backend] | list[Scenario], why_none: str, *, scope: str = "function"
) -> None:
    """Parametrize; an empty list gives one test that is skipped, with the reason."""
    params = [pytest.param(value, id=str(value)) for value in values]
    empty = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=why_none))]
    metafunc.parametrize(name, params or empty, scope="session" if scope == "session" else "function")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what was not asked for, put scenarios that can share a sandbox next to each other, and let gaps count."""
    suite = [item for item in items if item.get_closest_marker("tier") is not None]
    if not suite:
        return
    dropped = {item for item in suite if not _asked_for(config, item)}
    if dropped:
        config.hook.pytest_deselected(items=list(dropped))
        items[:] = [item for item in items if item not in dropped]
    places: dict[str, int] = {}
    items.sort(key=lambda item: _place_of(item, places))
    if (shard := config.getoption("--polyplane-shard")) is not None:
        part, _, parts = shard.partition("/")
        mine = {item for item, of in zip(items, shards(list(map(_weight, items)), int(parts)), strict=True) if of == int(part)}
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = [item for item in items if item in mine]
    for backend in {str(one): one for item in items if isinstance(one := _arguments(item).get("backend"), Backend)}.values():
        _check_gaps(config, backend)
    for item in items:
        _excuse(item)


def _weight(item: pytest.Item) -> float:
    """About how many seconds a test takes, so that parts of a run end together."""
    marker = item.get_closest_marker("tier")
    if marker is None or marker.args[0] != "netns":
        return 0.1
    return 0.5 if isinstance(_subject(item), Scenario) else 4.0 if "agent" in item.nodeid else 1.0


def _excuse(item: pytest.Item) -> None:
    """Expect a behaviour to fail where the backend states a gap; scenarios are judged cell by cell instead (`judge`)."""
    backend, marker = _arguments(item).get("backend"), item.get_closest_marker("tier")
    if isinstance(backend, Backend) and marker is not None and not isinstance(_subject(item), Scenario):
        gap = backend.gaps.find(name_of(item), marker.args[0])
        if gap is not None:
            item.add_marker(pytest.mark.xfail(reason=f"{gap.kind}: {gap.reason}", strict=True))


def _asked_for(config: pytest.Config, item: pytest.Item) -> bool:
    tiers, marker = config.getoption("--polyplane-tier"), item.get_closest_marker("tier")
    if marker is None or (tiers is not None and marker.args[0] not in tiers):
        return False
    return isinstance(_subject(item), Scenario) or _wanted(config, name_of(item))


def _place_of(item: pytest.Item, places: dict[str, int]) -> int:
    """A number for the sandbox that a test needs; -1 for none, or the shared one."""
    marker, subject = item.get_closest_marker("tier"), _subject(item)
    if marker is None or marker.args[0] != "netns" or not isinstance(subject, Scenario):
        return -1
    from polyplane_conformance.rig import topology_of

    return places.setdefault(f"{_arguments(item)['backend']} {topology_of(subject)}", len(places))


def _check_gaps(config: pytest.Config, backend: Backend) -> None:
    if backend.gaps.gaps:
        known = [scenario.name for scenario in (*load_scenarios(), *_scenarios(config), *_corpus(config))]
        try:
            backend.gaps.check([*known, *behaviours()])
        except GapError as error:
            raise pytest.UsageError(str(error)) from error


def _subject(item: pytest.Item) -> object:
    """The scenario or foreign case of a test, if it has one."""
    arguments = _arguments(item)
    return arguments.get("scenario") or arguments.get("case") or arguments.get("generated")


def _arguments(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec is not None else {}


def name_of(item: pytest.Item) -> str:
    """Return the name under which a test of the suite is reported: its scenario, case or behaviour."""
    subject = _subject(item)
    if isinstance(subject, Scenario):
        return subject.name
    return behaviour_name(item.function) if isinstance(item, pytest.Function) else item.name


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Judge an outcome, in the light of the gaps of the backend on trial."""
    item = request.node

    def verdict(outcome: Outcome) -> None:
        item.stash[_OUTCOME] = outcome
        backend = _arguments(item).get("backend")
        gap = None
        if isinstance(backend, Backend):
            gap = backend.gaps.find(name_of(item), item.get_closest_marker("tier").args[0])
        if gap is None:
            if not outcome.passed:
                pytest.fail(f"{outcome.explain()}\nagain: {_again(item)}", pytrace=False)
            return
        item.stash[_GAP] = gap
        leaks = [disagreement for disagreement in outcome.disagreements if disagreement.leak]
        if leaks:
            pytest.fail(f"a gap never means open ({gap.reason})\n" + "\n".join(map(str, leaks[:10])), pytrace=False)
        if outcome.passed:
            pytest.fail(f"{backend} can do this by now; remove its gap {gap.scenario!r} ({gap.reason})", pytrace=False)
        pytest.skip(f"{gap.kind}: {gap.reason}")

    return verdict


def _again(item: pytest.Item) -> str:
    """Return the command that plays only this."""
    config, arguments, marker = item.config, _arguments(item), item.get_closest_marker("tier")
    parts = ["polyplane-conformance run", f"--tier {marker.args[0]}" if marker is not None else "", f"--scenario '{name_of(item)}'"]
    if isinstance(backend := arguments.get("backend"), Backend):
        parts += [f"--backend {backend.name}", *(f"--option {key}={value}" for key, value in backend.options.items())]
    given = ((name, config.getoption(f"--polyplane-{name}")) for name in ("file", "corpus", "gaps", "source"))
    parts += [f"--{name} {value}" for name, value in given if value not in (None, "direct")]
    if "generated" in arguments:
        parts.append(f"--generated --seed {config.getoption('--polyplane-seed')}")
    return " ".join(filter(None, parts))


@pytest.fixture(scope="session")
def rigs(pytestconfig: pytest.Config) -> Iterator[Rigs]:
    """The sandboxes of this run, built once for all scenarios whose pods are in the same places."""
    if pytestconfig.getoption("--polyplane-tier") and (lacking := missing("root")):
        pytest.fail("; ".join(lacking), pytrace=False)
    require("root")
    from polyplane_conformance.rig import Rigs

    made = Rigs(pytestconfig.getoption("--polyplane-source"))
    yield made
    made.close()


@pytest.fixture
def stage(rigs: Rigs, backend: Backend) -> Stage:
    """The shared cast in a sandbox, enforced by the backend on trial; no policy yet."""
    from polyplane_conformance.rig import BARE, topology_of
    from polyplane_conformance.stage import Stage

    return Stage(rigs.get(topology_of(BARE), backend))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Enter the suite's tests into the report."""
    result: pytest.TestReport = yield  # type: ignore[assignment]  # a wrapper is sent the hook's result
    marker = item.get_closest_marker("tier")
    if marker is not None and (call.when == "call" or (call.when == "setup" and not result.passed)):
        status: Status = "passed" if result.passed else "failed" if result.failed else "skipped"
        if status == "skipped" and _GAP in item.stash:
            status = "gap"
        outcome = item.stash.get(_OUTCOME, Outcome())
        detail = ""
        if result.failed:
            detail = result.longreprtext
        elif result.skipped and isinstance(result.longrepr, tuple):
            detail = result.longrepr[2]
        backend, subject = _arguments(item).get("backend"), _subject(item)
        item.config.stash[REPORT].entries.append(
            Entry(
                tier=marker.args[0],
                backend=str(backend) if isinstance(backend, Backend) else "-",
                name=name_of(item),
                status=status,
                cells=outcome.cells,
                seconds=result.duration,
                detail=detail,
                api=api_of(subject) if isinstance(subject, Scenario) else "" if None in _arguments(item).values() else OPERATION,
                features=features_of(subject) if isinstance(subject, Scenario) else (),
            )
        )
    return result  # type: ignore[return-value]  # likewise


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report, if one was asked for."""
    path = session.config.getoption("--polyplane-report", None)
    if path is not None:
        session.config.stash[REPORT].write(path)
