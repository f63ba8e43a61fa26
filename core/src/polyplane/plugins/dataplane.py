"""`Dataplane`: a backend behind typed calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import structlog

from polyplane.backend_kit.garbage import uncollected
from polyplane.errors import ApplyError, BackendUnavailable, PluginContractError, PolyplaneError
from polyplane.hookspecs import Applied, BackendHooks, Drift, Fill, PacketEvent, RuleCount
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities
from polyplane.ir.program import IR_VERSION, Program
from polyplane.plugins.managers import implementations, make_manager, require_hooks, specified, typed

_T = TypeVar("_T")

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.plugins")


class Dataplane:
    """A backend, typed: the only caller of backend hooks.

    ``wrappers`` are plugins whose methods carry ``hookimpl(wrapper=True)``: around the backend's own, for dry runs, timing or
    fault injection. Whatever a backend raises that is not polyplane's own error is translated, so that a caller needs to
    know `ApplyError` and `BackendUnavailable` only.

    The garbage collector is off while a backend applies or audits: it may make a native statement for each address there is.
    """

    def __init__(self, name: str, plugin: object, *, wrappers: Iterable[object] = ()) -> None:
        """Register and check the plugin.

        :raises PluginContractError: hooks that are missing, misspelt or take unknown arguments
        """
        self.name = name
        self._manager = make_manager(BackendHooks, name, plugin, wrappers)
        require_hooks(self._manager, name, specified(BackendHooks))
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
        with uncollected():
            answer = self._call(lambda hook: hook.polyplane_apply(delta=delta), "apply")
        return self._typed("polyplane_apply", answer, Applied)

    def audit(self, program: Program) -> list[Drift]:
        """Compare what is in the kernel with the program."""
        self._check_version()
        with uncollected():
            answer = self._call(lambda hook: hook.polyplane_audit(program=program), "audit")
        return self._items("polyplane_audit", answer, Drift)

    def counters(self) -> list[RuleCount]:
        """Read the counters of all rules."""
        answer = self._call(lambda hook: hook.polyplane_counters(), "counters")
        return self._items("polyplane_counters", answer, RuleCount)

    def has(self, hook: str) -> bool:
        """Whether the backend implements an optional hook."""
        return bool(implementations(self._manager, hook))

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
        return typed(self.name, hook, answer, wanted)

    def _items(self, hook: str, answer: object, wanted: type[_T]) -> list[_T]:
        if not isinstance(answer, Sequence):
            raise PluginContractError(name=self.name, violation=f"{hook} gave {type(answer).__name__} instead of a sequence")
        return [typed(self.name, hook, item, wanted) for item in answer]
