"""Finding, loading and calling plugins, with distributions that are really installed (in a folder of the test's own)."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from stevedore.extension import ExtensionManager

from polyplane.cluster.model import InSync, SourceEvent
from polyplane.errors import (
    ApplyError,
    BackendUnavailable,
    ConfigError,
    PluginConflict,
    PluginContractError,
    PluginLoadError,
    PluginNotFound,
    PolyplaneError,
)
from polyplane.hookspecs import BACKENDS, DIALECTS, OBSERVERS, SOURCES, Applied, Drift, hookimpl
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities, Feature
from polyplane.ir.program import EMPTY
from polyplane.plugins import Dataplane, Observers, PluginInfo, Source, dialects, list_plugins, load, load_backend, load_observers
from polyplane.reconcile.diff import diff
from polyplane.testing import MemoryBackend

Install = Callable[..., None]
NOTHING = diff(EMPTY, EMPTY)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one module and one entry point, for the time of the test."""
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def installer(distribution: str, entry: str, module: str, code: str, group: str = BACKENDS) -> None:
        module_file = site / f"{module}.py"
        module_file.write_text(code)
        info = site / f"{distribution.replace('-', '_')}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")

    yield installer
    for module in set(sys.modules) - before:
        if module.startswith("acme"):
            del sys.modules[module]


ACME = "from polyplane.testing import MemoryBackend\nclass Acme(MemoryBackend):\n    pass\n"


def test_built_ins_come_through_the_same_door() -> None:
    (found,) = [info for info in list_plugins(BACKENDS) if info.name == "memory"]
    assert (found.value, found.distribution, found.group) == ("polyplane.testing:MemoryBackend", "polyplane", BACKENDS)
    assert found.version
    assert isinstance(load(BACKENDS, "memory", {}), MemoryBackend)


def test_listing_imports_nothing_and_loading_imports_one(install: Install) -> None:
    install("acme-one", "one = acme_one:Acme", "acme_one", ACME)
    install("acme-two", "two = acme_two:Acme", "acme_two", ACME)
    names = [info.name for info in list_plugins(BACKENDS)]
    assert {"one", "two"} <= set(names)
    assert not {"acme_one", "acme_two"} & set(sys.modules)
    assert load_backend("one", {}).name == "one"
    assert "acme_one" in sys.modules
    assert "acme_two" not in sys.modules


def test_plugin_info_names_the_distribution(install: Install) -> None:
    install("acme-one", "one = acme_one:Acme", "acme_one", ACME)
    expected = PluginInfo(group=BACKENDS, name="one", value="acme_one:Acme", distribution="acme-one", version="2.5")
    assert expected in list_plugins(BACKENDS)


def test_missing_plugin_says_what_is_there_and_how_to_get_it() -> None:
    with pytest.raises(
        PluginNotFound, match=r"no backend named 'acme' is installed \(installed: .*memory.*\); try: pip install polyplane-acme"
    ):
        load(BACKENDS, "acme", {})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import acme_missing_library", "ModuleNotFoundError: No module named 'acme_missing_library'"),
        ("Wrong = 1", "AttributeError"),
        ("class Acme:\n    def __init__(self, options):\n        raise RuntimeError('no kernel')", "RuntimeError: no kernel"),
        ("class Acme:\n    pass", "TypeError"),
    ],
)
def test_broken_plugin_says_who_brought_it_and_why(install: Install, code: str, reason: str) -> None:
    install("acme-one", "one = acme_one:Acme", "acme_one", code)
    with pytest.raises(PluginLoadError) as caught:
        load(BACKENDS, "one", {})
    assert "backend 'one' (from acme-one 2.5) is installed but does not load: acme_one:Acme" in str(caught.value)
    assert reason in str(caught.value)


def test_doubly_claimed_plugin_names_both_claimants_even_if_one_is_broken(install: Install) -> None:
    install("acme-one", "one = acme_one:Acme", "acme_one", ACME)
    install("acme-two", "one = acme_two:Acme", "acme_two", "import acme_missing_library")
    with pytest.raises(PluginConflict, match=r"backend 'one' is claimed by acme-one 2\.5 and acme-two 2\.5; uninstall all but one"):
        load(BACKENDS, "one", {})


def test_refused_options_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError):
        load(BACKENDS, "memory", {"colour": "red"})


# --- the contract ----------------------------------------------------------------------------------------------------


class Backend(MemoryBackend):
    """Complete; subclasses break it."""


def test_missing_hook_is_a_contract_error() -> None:
    class Incomplete:
        @hookimpl
        def polyplane_render(self, delta: Delta) -> str:
            return ""

    with pytest.raises(PluginContractError, match="plugin 'acme' breaks the hook contract: it does not implement polyplane_capabilities"):
        Dataplane("acme", Incomplete())


def test_misspelt_hook_is_a_contract_error() -> None:
    class Misspelt(Backend):
        @hookimpl
        def polyplane_aply(self, delta: Delta) -> Applied:
            return Applied(operations=0)

    with pytest.raises(PluginContractError, match="polyplane_aply"):
        Dataplane("acme", Misspelt())


def test_unknown_argument_is_a_contract_error() -> None:
    class Greedy(Backend):
        @hookimpl
        def polyplane_render(self, delta: Delta, colour: str) -> str:
            return colour

    with pytest.raises(PluginContractError, match="colour"):
        Dataplane("acme", Greedy())


def test_arguments_may_be_left_out() -> None:
    class Modest(Backend):
        @hookimpl
        def polyplane_render(self) -> str:  # type: ignore[override]  # that is the point
            return "modest"

    assert Dataplane("acme", Modest()).render(NOTHING) == "modest"


@pytest.mark.parametrize("answer", [None, 3, {"operations": 1}])
def test_wrong_answers_are_contract_errors(answer: object) -> None:
    class Wrong(Backend):
        @hookimpl
        def polyplane_apply(self, delta: Delta) -> Any:
            return answer

        @hookimpl
        def polyplane_audit(self) -> Any:
            return answer if answer is None or isinstance(answer, int) else [answer]

    dataplane = Dataplane("acme", Wrong())
    with pytest.raises(PluginContractError, match="polyplane_apply gave"):
        dataplane.apply(NOTHING)
    with pytest.raises(PluginContractError, match="polyplane_audit gave"):
        dataplane.audit(EMPTY)


def test_other_ir_version_is_refused_before_anything_is_applied() -> None:
    class Old(Backend):
        @hookimpl
        def polyplane_capabilities(self) -> Capabilities:
            return Capabilities(supported=frozenset(Feature), ir_version=0)

    backend = Old()
    with pytest.raises(PluginContractError, match="IR version 0, this polyplane speaks 1"):
        Dataplane("acme", backend).apply(NOTHING)
    assert backend.deltas == 0
    assert Dataplane("acme", backend).teardown().operations == 0


def test_what_is_missing_on_the_machine_is_named() -> None:
    class Elsewhere(Backend):
        @hookimpl
        def polyplane_capabilities(self) -> Capabilities:
            return Capabilities(supported=frozenset(Feature), missing=("nft is not installed; apt install nftables", "no root"))

    dataplane = Dataplane("acme", Elsewhere())
    assert len(dataplane.capabilities().missing) == 2
    with pytest.raises(BackendUnavailable, match="acme cannot run on this machine: nft is not installed; apt install nftables; no root"):
        dataplane.require_available()


def test_foreign_errors_are_translated() -> None:
    class Clumsy(Backend):
        @hookimpl
        def polyplane_capabilities(self) -> Capabilities:
            if self.deltas:
                raise OSError("no such kernel")
            return super().polyplane_capabilities()

        @hookimpl
        def polyplane_apply(self, delta: Delta) -> Applied:
            self.deltas += 1
            raise OSError("no such table")

    dataplane = Dataplane("acme", Clumsy())
    with pytest.raises(ApplyError, match="acme: apply: OSError: no such table") as caught:
        dataplane.apply(NOTHING)
    assert caught.value.retryable
    with pytest.raises(BackendUnavailable, match="no such kernel"):
        dataplane.capabilities()


def test_wrappers_go_around_the_backend() -> None:
    class DryRun:
        @hookimpl(wrapper=True)
        def polyplane_apply(self, delta: Delta) -> Generator[None, Applied, Applied]:
            result = yield
            return Applied(operations=result.operations + 100)

    class Fault:
        @hookimpl(wrapper=True)
        def polyplane_apply(self) -> Generator[None, Applied, Applied]:
            yield
            raise ApplyError("pulled the plug", backend="acme", retryable=True)

    assert Dataplane("acme", Backend(), wrappers=[DryRun()]).apply(NOTHING).operations == 100
    with pytest.raises(ApplyError, match="pulled the plug"):
        Dataplane("acme", Backend(), wrappers=[Fault()]).apply(NOTHING)


def test_the_collector_is_off_while_a_backend_applies_and_audits() -> None:
    seen = []

    class Large(Backend):
        @hookimpl
        def polyplane_apply(self) -> Applied:
            seen.append(gc.isenabled())
            raise ApplyError("in vain", backend="acme", retryable=True)

        @hookimpl
        def polyplane_audit(self) -> tuple[Drift, ...]:
            seen.append(gc.isenabled())
            return ()

    dataplane = Dataplane("acme", Large())
    with pytest.raises(ApplyError):
        dataplane.apply(NOTHING)
    assert dataplane.audit(EMPTY) == []
    assert seen == [False, False]
    assert gc.isenabled()


def test_second_implementation_is_refused() -> None:
    with pytest.raises(PluginContractError, match="has 2 implementations of polyplane_capabilities"):
        Dataplane("acme", Backend(), wrappers=[Backend()])


# --- sources, dialects, observers --------------------------------------------------------------------------------------


def test_source_is_started_and_stopped() -> None:
    class Here:
        running = False

        @hookimpl
        def polyplane_source_start(self, emit: Callable[[SourceEvent], None]) -> bool:
            self.running = True
            emit(InSync())
            return True

        @hookimpl
        def polyplane_source_stop(self) -> bool:
            self.running = False
            return True

    plugin, events = Here(), list[SourceEvent]()
    with Source("here", plugin) as source:
        source.start(events.append)
        assert plugin.running
    assert events == [InSync()]
    assert not plugin.running
    with pytest.raises(PluginContractError):
        Source("here", object())


def test_source_that_fails_says_so_and_hides_nothing() -> None:
    class Broken:
        @hookimpl
        def polyplane_source_start(self) -> bool:
            raise OSError("no network")

        @hookimpl
        def polyplane_source_stop(self) -> bool:
            raise OSError("still no network")

    source = Source("broken", Broken())
    with pytest.raises(PolyplaneError, match="source broken does not start: OSError: no network"), source:
        source.start(lambda _: None)


DIALECT = """
from polyplane.cluster.model import Dialect
from polyplane.hookspecs import hookimpl
class Acme:
    @hookimpl
    def polyplane_dialects(self):
        return [Dialect(api_version="acme/v1", kind="Wall", namespaced=True, tiers=(), parse=lambda raw: None)]
"""


def test_all_installed_dialects_are_loaded(install: Install) -> None:
    install("acme-one", "one = acme_one:Acme", "acme_one", DIALECT, DIALECTS)
    assert "Wall" in [dialect.kind for dialect in dialects()]


def test_one_api_translated_twice_is_refused(install: Install) -> None:
    install("acme-one", "one = acme_one:Acme", "acme_one", DIALECT, DIALECTS)
    install("acme-two", "two = acme_two:Acme", "acme_two", DIALECT, DIALECTS)
    with pytest.raises(PluginContractError, match=r"plugin 'two' .*acme/v1 Wall is translated by dialect 'one' already"):
        dialects()


class Bad:
    def __init__(self, options: Mapping[str, object]) -> None:
        pass

    @hookimpl
    def polyplane_applied(self, delta: Delta) -> None:
        raise SystemError("observers may be as broken as they like")

    @hookimpl
    def polyplane_drifted(self) -> None:
        raise KeyError("x")


class Good:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def polyplane_applied(self, seconds: float) -> None:
        self.heard.append(f"applied in {seconds}")

    @hookimpl
    def polyplane_failed(self, error: Exception, attempt: int) -> None:
        self.heard.append(f"failed {error} {attempt}")

    @hookimpl
    def polyplane_drifted(self, drifts: list[Drift]) -> None:
        self.heard.append(f"{len(drifts)} drifts")


def test_raising_observer_disturbs_nobody() -> None:
    first, last = Good(), Good()
    observers = Observers([("first", first), ("bad", Bad({})), ("last", last)])
    observers.applied(NOTHING, Applied(operations=0), 0.5)
    observers.failed(NOTHING, ValueError("x"), 2)
    observers.drifted([Drift(subject="a", expected="b", found="c")])
    assert first.heard == last.heard == ["applied in 0.5", "failed x 2", "1 drifts"]


def test_misspelt_observer_hook_is_a_contract_error() -> None:
    class Misspelt:
        @hookimpl
        def polyplane_aplied(self) -> None: ...

    with pytest.raises(PluginContractError):
        Observers([("typo", Misspelt())])


def test_observers_are_loaded_by_name_with_their_options(install: Install) -> None:
    code = "class Acme:\n    options = None\n    def __init__(self, options):\n        type(self).options = options\n"
    install("acme-one", "one = acme_one:Acme", "acme_one", code, OBSERVERS)
    load_observers(["one"], {"one": {"colour": "red"}})
    assert sys.modules["acme_one"].Acme.options == {"colour": "red"}
    with pytest.raises(PluginNotFound, match="no observer named"):
        load_observers(["unknown"], {})
    with pytest.raises(PluginNotFound, match="no source named"):
        load(SOURCES, "unknown", {})


def test_hook_calls_are_traced_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Dataplane("memory", MemoryBackend()).apply(NOTHING)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("POLYPLANE_TRACE_HOOKS", "1")
    Dataplane("memory", MemoryBackend()).apply(NOTHING)
    lines = capsys.readouterr().err.splitlines()
    assert "hook memory: polyplane_apply(delta=<delta 0 -> 0: 0 operations>)" in lines
    assert lines[-1].startswith("hook memory: polyplane_apply -> Applied(operations=0")
