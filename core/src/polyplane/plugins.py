"""Plugins: stevedore finds the code, pluggy makes the calls, and here they meet.

Nothing else in polyplane touches a plugin manager. `load` brings in exactly the plugin that was asked for and turns what can go
wrong into four different errors; the facades `Dataplane`, `Source` and `Observers` are the only callers of hooks. With
``POLYPLANE_TRACE_HOOKS=1`` in the environment every hook call is printed to standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import pluggy
import structlog
from stevedore.driver import DriverManager
from stevedore.exception import MultipleMatches, NoMatches
from stevedore.extension import error_on_conflict

from polyplane.cluster.model import Dialect, SourceEvent
from polyplane.errors import (
    ApplyError,
    BackendUnavailable,
    PluginConflict,
    PluginContractError,
    PluginLoadError,
    PluginNotFound,
    PolyplaneError,
)
from polyplane.hookspecs import (
    BACKENDS,
    DIALECTS,
    OBSERVERS,
    OPTIONAL,
    PROJECT,
    SOURCES,
    Applied,
    BackendHooks,
    DialectHooks,
    Drift,
    Fill,
    Followed,
    ObserverHooks,
    PacketEvent,
    RuleCount,
    SourceHooks,
)
from polyplane.hooktrace import trace_if_asked
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities
from polyplane.ir.program import IR_VERSION, Program

_T = TypeVar("_T")

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.plugins")


# --- finding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PluginInfo:
    """An announced plugin, not yet imported. ``value`` is its place, ``module:attribute``."""

    group: str
    name: str
    value: str
    distribution: str
    version: str


def list_plugins(group: str) -> list[PluginInfo]:
    """Return what installed distributions announce in the group, sorted by name; imports nothing.

    A name that two distributions claim appears twice. The same distribution seen twice (an editable install beside its
    checkout) does not.
    """
    # Not through stevedore: its cached entry points have lost their distribution.
    return sorted({_info(group, entry_point) for entry_point in entry_points(group=group)})


def _info(group: str, entry_point: EntryPoint) -> PluginInfo:
    distribution = entry_point.dist
    return PluginInfo(
        group=group,
        name=entry_point.name,
        value=entry_point.value,
        distribution="unknown" if distribution is None else distribution.name,
        version="" if distribution is None else distribution.version,
    )


def find(group: str, name: str) -> PluginInfo:
    """Return the one announcement of the name.

    :raises PluginNotFound: nobody announces it
    :raises PluginConflict: several distributions do
    """
    announced = list_plugins(group)
    claims = [info for info in announced if info.name == name]
    if not claims:
        raise PluginNotFound(group=group, name=name, installed=tuple(sorted({info.name for info in announced})))
    if len(claims) > 1:
        raise PluginConflict(group=group, name=name, distributions=tuple(f"{info.distribution} {info.version}" for info in claims))
    return claims[0]


def load(group: str, name: str, options: Mapping[str, object] | None = None) -> object:
    """Import and construct the named plugin, and no other; ``options`` None constructs it without an argument.

    :raises PluginNotFound: no distribution announces it
    :raises PluginConflict: several do
    :raises PluginLoadError: its import or its constructor fails
    :raises ConfigError: it refuses its options
    """
    info = find(group, name)
    arguments = () if options is None else (options,)
    try:
        manager: DriverManager[Any] = DriverManager(
            group, name, invoke_on_load=True, invoke_args=arguments, conflict_resolver=error_on_conflict
        )
    except PolyplaneError:
        raise
    except (NoMatches, MultipleMatches) as error:
        # The metadata changed under our feet, or stevedore's cache on disk is older than it.
        reason = f"{error}; if it was installed just now, remove ~/.cache/python-entrypoints"
        raise PluginLoadError(group=group, name=name, distribution=info.distribution, reason=reason) from error
    except Exception as error:
        reason = f"{info.value}: {type(error).__name__}: {error}"
        raise PluginLoadError(group=group, name=name, distribution=f"{info.distribution} {info.version}", reason=reason) from error
    plugin: object = manager.extensions[0].obj
    return plugin


def load_backend(name: str, options: Mapping[str, object], *, wrappers: Iterable[object] = ()) -> Dataplane:
    """Load the named backend behind its facade."""
    return Dataplane(name, load(BACKENDS, name, options), wrappers=wrappers)


def load_source(name: str, options: Mapping[str, object]) -> Source:
    """Load the named source behind its facade."""
    return Source(name, load(SOURCES, name, options))


def load_observers(names: Iterable[str], options: Mapping[str, Mapping[str, object]]) -> Observers:
    """Load the named observers, in this order, each with its own options."""
    return Observers([(name, load(OBSERVERS, name, options.get(name, {}))) for name in names])


def dialects() -> tuple[Dialect, ...]:
    """Return the policy APIs of all installed dialect plugins.

    :raises PluginContractError: two plugins translate the same API
    """
    found: dict[tuple[str, str], tuple[str, Dialect]] = {}
    for name in sorted({info.name for info in list_plugins(DIALECTS)}):
        manager = _manager(DialectHooks, name, load(DIALECTS, name))
        _require_hooks(manager, name, ["polyplane_dialects"])
        for dialect in (dialect for answer in manager.hook.polyplane_dialects() for dialect in answer):
            if not isinstance(dialect, Dialect):
                raise PluginContractError(name=name, violation=f"polyplane_dialects gave {type(dialect).__name__} instead of Dialect")
            api = dialect.api_version, dialect.kind
            if api in found:
                raise PluginContractError(
                    name=name, violation=f"{' '.join(api)} is translated by dialect {found[api][0]!r} already; uninstall one of them"
                )
            found[api] = name, dialect
    return tuple(dialect for _, dialect in found.values())


# --- calling ---------------------------------------------------------------------------------------------------------


def _manager(hooks: type, name: str, plugin: object, wrappers: Iterable[object] = ()) -> pluggy.PluginManager:
    """Return a plugin manager with the specifications, the plugin and its wrappers, all checked."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, name)
        for wrapper in wrappers:
            manager.register(wrapper)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        violation = " ".join(str(error).split())
        raise PluginContractError(name=name, violation=violation) from error
    trace_if_asked(manager, name)
    return manager


def _require_hooks(manager: pluggy.PluginManager, name: str, hooks: Iterable[str]) -> None:
    """Check that exactly one plugin implements each hook: pluggy would answer None for a hook that nobody implements."""
    for hook in hooks:
        plain = _implementations(manager, hook)
        if len(plain) != 1 and (plain or hook not in OPTIONAL):
            how = "does not implement" if not plain else f"has {len(plain)} implementations of"
            raise PluginContractError(name=name, violation=f"it {how} {hook}; each backend, source and dialect hook needs exactly one")


def _implementations(manager: pluggy.PluginManager, hook: str) -> list[pluggy.HookImpl]:
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return [implementation for implementation in caller.get_hookimpls() if not _wraps(implementation)]


def _wraps(implementation: pluggy.HookImpl) -> bool:
    return implementation.wrapper or implementation.hookwrapper


def _specified(hooks: type) -> list[str]:
    return [name for name in vars(hooks) if name.startswith("polyplane_")]


class Dataplane:
    """A backend, typed: the only caller of backend hooks.

    ``wrappers`` are plugins whose methods carry ``hookimpl(wrapper=True)``: around the backend's own, for dry runs, timing or
    fault injection. Whatever a backend raises that is not polyplane's own error is translated, so that a caller needs to
    know `ApplyError` and `BackendUnavailable` only.
    """

    def __init__(self, name: str, plugin: object, *, wrappers: Iterable[object] = ()) -> None:
        """Register and check the plugin.

        :raises PluginContractError: hooks that are missing, misspelt or take unknown arguments
        """
        self.name = name
        self._manager = _manager(BackendHooks, name, plugin, wrappers)
        _require_hooks(self._manager, name, _specified(BackendHooks))
        self._version_checked = False

    def capabilities(self) -> Capabilities:
        """Ask what the backend can do here and now.

        :raises PluginContractError: it was written for another version of the IR
        :raises BackendUnavailable: it cannot even say
        """
        try:
            answer = self._manager.hook.polyplane_capabilities()
        except PolyplaneError:
            raise
        except Exception as error:
            raise BackendUnavailable(f"{self.name} cannot say what it can do: {type(error).__name__}: {error}") from error
        capabilities = self._typed("polyplane_capabilities", answer, Capabilities)
        if capabilities.ir_version != IR_VERSION:
            violation = (
                f"it was written for IR version {capabilities.ir_version}, this polyplane speaks {IR_VERSION}; install matching versions"
            )
            raise PluginContractError(name=self.name, violation=violation)
        self._version_checked = True
        return capabilities

    def require_available(self) -> Capabilities:
        """Return the capabilities of a backend that can run here.

        :raises BackendUnavailable: naming everything that is missing and the remedies
        """
        capabilities = self.capabilities()
        if capabilities.missing:
            raise BackendUnavailable(f"{self.name} cannot run on this machine: {'; '.join(capabilities.missing)}")
        return capabilities

    def render(self, delta: Delta) -> str:
        """Return the native text of the delta."""
        self._check_version()
        answer = self._call(lambda hook: hook.polyplane_render(delta=delta), "render")
        return self._typed("polyplane_render", answer, str)

    def apply(self, delta: Delta) -> Applied:
        """Bring the delta's target into force.

        :raises ApplyError: see `BackendHooks.polyplane_apply`
        """
        self._check_version()
        answer = self._call(lambda hook: hook.polyplane_apply(delta=delta), "apply")
        return self._typed("polyplane_apply", answer, Applied)

    def audit(self, program: Program) -> list[Drift]:
        """Compare what is in the kernel with the program."""
        self._check_version()
        answer = self._call(lambda hook: hook.polyplane_audit(program=program), "audit")
        return self._items("polyplane_audit", answer, Drift)

    def counters(self) -> list[RuleCount]:
        """Read the counters of all rules."""
        answer = self._call(lambda hook: hook.polyplane_counters(), "counters")
        return self._items("polyplane_counters", answer, RuleCount)

    def has(self, hook: str) -> bool:
        """Whether the backend implements an optional hook."""
        return bool(_implementations(self._manager, hook))

    def show(self) -> str:
        """Return as text what is in the kernel.

        :raises BackendUnavailable: this backend cannot
        """
        if not self.has("polyplane_show"):
            raise BackendUnavailable(
                f"{self.name} cannot decode what is in the kernel; see what it would bring there with "
                f"`polyplane render --backend {self.name}`, and what is there with the dataplane's own tools"
            )
        answer = self._call(lambda hook: hook.polyplane_show(), "show")
        return self._typed("polyplane_show", answer, str)

    def fill(self) -> list[Fill]:
        """Read how full the dataplane's tables are."""
        answer = self._call(lambda hook: hook.polyplane_fill(), "fill")
        return self._items("polyplane_fill", answer, Fill)

    def events(self) -> list[PacketEvent]:
        """Take what the dataplane has told about packets."""
        answer = self._call(lambda hook: hook.polyplane_events(), "events")
        return self._items("polyplane_events", answer, PacketEvent)

    def teardown(self) -> Applied:
        """Remove everything that is the backend's own; works whatever version of the IR it was written for."""
        answer = self._call(lambda hook: hook.polyplane_teardown(), "teardown")
        return self._typed("polyplane_teardown", answer, Applied)

    def _check_version(self) -> None:
        if not self._version_checked:
            self.capabilities()

    def _call(self, call: Callable[[Any], object], what: str) -> object:
        try:
            return call(self._manager.hook)
        except PolyplaneError:
            raise
        except Exception as error:
            # A bug in the backend or a surprise from the system: worth another try, never worth the agent's life.
            _log.debug("backend raised a foreign error", backend=self.name, hook=what, exc_info=True)
            raise ApplyError(f"{what}: {type(error).__name__}: {error}", backend=self.name, retryable=True) from error

    def _typed(self, hook: str, answer: object, wanted: type[_T]) -> _T:
        return _typed(self.name, hook, answer, wanted)

    def _items(self, hook: str, answer: object, wanted: type[_T]) -> list[_T]:
        if not isinstance(answer, Sequence):
            raise PluginContractError(name=self.name, violation=f"{hook} gave {type(answer).__name__} instead of a sequence")
        return [_typed(self.name, hook, item, wanted) for item in answer]


class Source:
    """Where cluster objects come from, typed: the only caller of source hooks. A context manager that stops it."""

    def __init__(self, name: str, plugin: object) -> None:
        """Register and check the plugin.

        :raises PluginContractError: hooks that are missing, misspelt or take unknown arguments
        """
        self.name = name
        self._manager = _manager(SourceHooks, name, plugin)
        _require_hooks(self._manager, name, _specified(SourceHooks))

    def start(self, emit: Callable[[SourceEvent], None], dialects: Sequence[Dialect] = ()) -> None:
        """Begin to receive events through ``emit``, which is called from other threads.

        :param dialects: the policy APIs that are read

        :raises PolyplaneError: when the source cannot start
        """
        try:
            self._manager.hook.polyplane_source_start(emit=emit, dialects=dialects)
        except PolyplaneError:
            raise
        except Exception as error:
            raise PolyplaneError(f"source {self.name} does not start: {type(error).__name__}: {error}") from error

    def stop(self) -> None:
        """Receive no more events. A source that fails to stop is logged: whoever stops is on the way out."""
        try:
            self._manager.hook.polyplane_source_stop()
        except Exception:  # noqa: BLE001  # whatever it is, it must not hide why we stop
            _log.exception("source failed to stop", source=self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class Observers:
    """Plugins that are told what happened. One that raises is logged; the others hear of it all the same, and so it goes on."""

    def __init__(self, plugins: Iterable[tuple[str, object]] = ()) -> None:
        """Register and check each.

        :raises PluginContractError: hooks that are misspelt or take unknown arguments
        """
        # One manager each: in a shared one, a raising plugin would keep the call from those registered before it.
        self._managers = [(name, _manager(ObserverHooks, name, plugin)) for name, plugin in plugins]

    def applied(self, delta: Delta, result: Applied, seconds: float) -> None:
        """Tell them that a delta is in force."""
        self._tell("polyplane_applied", delta=delta, result=result, seconds=seconds)

    def failed(self, delta: Delta, error: Exception, attempt: int) -> None:
        """Tell them that a delta could not be applied."""
        self._tell("polyplane_failed", delta=delta, error=error, attempt=attempt)

    def followed(self, followed: Followed) -> None:
        """Tell them what a batch of events led to."""
        self._tell("polyplane_followed", followed=followed)

    def counted(self, program: Program, counts: Sequence[RuleCount]) -> None:
        """Tell them the counters."""
        self._tell("polyplane_counted", program=program, counts=counts)

    def filled(self, fills: Sequence[Fill]) -> None:
        """Tell them how full the tables are."""
        self._tell("polyplane_filled", fills=fills)

    def seen(self, program: Program, events: Sequence[PacketEvent]) -> None:
        """Tell them about packets."""
        self._tell("polyplane_seen", program=program, events=events)

    def wants(self, hook: str) -> bool:
        """Whether any of them implements the hook, for facts that are costly to gather."""
        return any(getattr(manager.hook, hook).get_hookimpls() for _, manager in self._managers)

    def drifted(self, drifts: Sequence[Drift]) -> None:
        """Tell them that somebody else changed our state."""
        self._tell("polyplane_drifted", drifts=drifts)

    def _tell(self, hook: str, **facts: object) -> None:
        for name, manager in self._managers:
            try:
                getattr(manager.hook, hook)(**facts)
            except Exception:  # noqa: BLE001  # whatever it is, an observer must never disturb enforcement
                _log.exception("observer failed", observer=name, hook=hook)


def _typed(name: str, hook: str, answer: object, wanted: type[_T]) -> _T:
    if not isinstance(answer, wanted):
        raise PluginContractError(name=name, violation=f"{hook} gave {type(answer).__name__} instead of {wanted.__name__}")
    return answer
