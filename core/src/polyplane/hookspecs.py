"""The plugin contract. Read this first if you write a plugin.

A backend, a source, a dialect or an observer is an object whose methods carry `hookimpl`; its class is announced by an entry
point in one of the groups `GROUPS`. stevedore finds it, pluggy checks its methods against the specifications below and calls
them (`polyplane.plugins`). An implementation may leave out arguments it does not need.

Each specification is a `typing.Protocol`: the same text serves pluggy, mypy and the reference page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import pluggy

from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.features import Capabilities
from polyplane.ir.program import Direction, IcmpType, Program

if TYPE_CHECKING:
    from polyplane.cluster.model import Dialect, ObjectKey, SourceEvent
    from polyplane.cluster.problems import Problem

PROJECT: Final = "polyplane"

hookspec = pluggy.HookspecMarker(PROJECT)
#: Marks a plugin's methods.
hookimpl = pluggy.HookimplMarker(PROJECT)

BACKENDS: Final = "polyplane.backends"
SOURCES: Final = "polyplane.sources"
DIALECTS: Final = "polyplane.dialects"
OBSERVERS: Final = "polyplane.observers"
#: The entry-point groups, in the order in which data passes through their plugins.
GROUPS: Final = (SOURCES, DIALECTS, BACKENDS, OBSERVERS)
#: Hooks that a backend may leave out, because not every dataplane can answer them.
OPTIONAL: Final = frozenset({"polyplane_show", "polyplane_fill", "polyplane_events"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What `polyplane_apply` did.

    ``operations`` counts native operations that reached the kernel (an element, a rule, a chain, a map entry, a flow):
    0 when nothing had to change. ``detail`` says more for logs (``{"elements": 3}``).
    """

    operations: int
    detail: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference between what should be in the kernel and what is: the object, what was expected, what was found."""

    subject: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCount:
    """Packets and bytes that a rule id decided, since its counter was created."""

    rule_id: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """How full one of the dataplane's tables is.

    ``used`` and ``capacity`` count entries. ``remedy`` says what to do before it is full, empty where nothing needs to be done:
    a table that makes room by itself, for instance.
    """

    name: str
    used: int
    capacity: int
    remedy: str = ""


class PacketEventKind(StrEnum):
    """Why a dataplane tells about a packet."""

    #: It was denied.
    DENY = "deny"
    #: A rule with the action `log` matched.
    LOG = "log"
    #: It was denied to or from an isolated endpoint, because it cannot be read.
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketEvent:
    """One packet that a dataplane has something to say about, with the addresses that policy was asked about.

    ``rule_id`` decided or logged it, 0: none did. ``direction`` is that of the policy. Ports are 0 where the protocol has none.
    """

    kind: PacketEventKind
    rule_id: int
    direction: Direction
    source: Cidr
    destination: Cidr
    protocol: int
    source_port: int = 0
    port: int = 0
    icmp: IcmpType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A change of a cluster object that changed what this node must enforce.

    ``at`` is when it came from the source, on the clock of `time.monotonic`. ``new``: a policy that was not there before, or a
    pod that had no address before.
    """

    key: ObjectKey
    at: float
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What the agent knows and wants after it has followed a batch of events.

    ``objects`` counts the cluster's objects by kind; ``problems`` and ``unsupported`` are the current ones, all of them.
    ``arrivals`` are those of the batch that made ``program`` differ from the one before, none before the first sync.
    ``policies`` are those that are in force, a live view: copy it to keep it.
    ``waited`` is how long the oldest event lay in the queue, ``seconds`` how long store and compiler took.
    """

    program: Program
    in_sync: bool
    events: int
    waited: float
    seconds: float
    objects: Mapping[str, int]
    problems: Mapping[str, Problem]
    unsupported: Mapping[ObjectKey, tuple[str, ...]]
    arrivals: tuple[Arrival, ...] = ()
    policies: Collection[ObjectKey] = ()


class BackendHooks(Protocol):
    """One registered plugin implements these: the chosen backend. It is constructed as ``Backend(options)``.

    All but those that say "optional".

    ``options`` is the mapping under ``[backend.<name>]`` of the configuration; the constructor raises
    `polyplane.errors.ConfigError` for a key or value it does not know, and touches nothing in the kernel.
    """

    @hookspec(firstresult=True)
    def polyplane_capabilities(self) -> Capabilities:
        """Say what this backend can do on this machine now.

        Called before anything else, and by ``polyplane backends``. Must not change anything. An exception here counts as
        "cannot run"; better to return `Capabilities.missing` with the remedies.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_render(self, delta: Delta) -> str:
        """Return the native text that `polyplane_apply` would bring into the kernel for this delta, were ``delta.base`` there.

        Pure: no I/O, no privileges, the same text for the same delta. Used for dry runs and golden files.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_apply(self, delta: Delta) -> Applied:
        """Bring ``delta.target`` into force, atomically where the dataplane can.

        The first call after start has an empty ``delta.base`` while the kernel may still hold what an earlier run left: the
        backend reads back what is its own and changes only what differs. At every moment the kernel must allow nothing that
        neither base nor target allows. When it returns, the target is in force.

        :raises polyplane.errors.ApplyError: nothing or only a safe part was changed; `retryable` says whether to try again
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_audit(self, program: Program) -> Sequence[Drift]:
        """Read back everything that is ours and compare it with what ``program`` asks for; change nothing.

        After it has returned drift, the agent calls `polyplane_apply` with an empty base, which must repair it.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_counters(self) -> Sequence[RuleCount]:
        """Read the packet and byte counters of all rule ids. Counters restart when their rule is created anew."""
        ...

    @hookspec(firstresult=True)
    def polyplane_show(self) -> str:
        """Read back from the kernel what is ours, and return it as text; change nothing. Optional.

        The canonical text of a program that decides as the kernel does, where the dataplane holds enough to make one; else its
        own text. Used by ``polyplane show --from-kernel``.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_fill(self) -> Sequence[Fill]:
        """Return how full the dataplane's tables are. Optional; for dataplanes whose tables have a size.

        Called every few seconds while everything is in force: it should cost little.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_events(self) -> Sequence[PacketEvent]:
        """Return what the dataplane has told about packets since the last call, oldest first; never wait. Optional.

        Called about once a second, only if an observer wants to know. How many there are at most is the backend's to bound.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_teardown(self) -> Applied:
        """Remove everything that is recognisably ours, and nothing else; also what another version or a crash left behind."""
        ...


class ObserverHooks(Protocol):
    """Any number of plugins may implement these. They are told what happened and cannot change it.

    Constructed as ``Observer(options)`` with the mapping under ``[observer.<name>]``. Exceptions are logged and disturb nobody.
    """

    @hookspec
    def polyplane_applied(self, delta: Delta, result: Applied, seconds: float) -> None:
        """Called after each successful apply; ``seconds`` is how long it took."""

    @hookspec
    def polyplane_failed(self, delta: Delta, error: Exception, attempt: int) -> None:
        """Called after each failed apply; ``attempt`` counts from 1 and starts again after a success."""

    @hookspec
    def polyplane_followed(self, followed: Followed) -> None:
        """Called after each batch of events, before anything is applied."""

    @hookspec
    def polyplane_counted(self, program: Program, counts: Sequence[RuleCount]) -> None:
        """Called now and then with the counters of all rules; ``program`` is in force. Only if somebody implements it are they read."""

    @hookspec
    def polyplane_filled(self, fills: Sequence[Fill]) -> None:
        """Called now and then with how full the dataplane's tables are, if it can tell."""

    @hookspec
    def polyplane_seen(self, program: Program, events: Sequence[PacketEvent]) -> None:
        """Called with what the dataplane tells about packets, if it can; ``program`` is in force. Never with nothing."""

    @hookspec
    def polyplane_drifted(self, drifts: Sequence[Drift]) -> None:
        """Called when an audit found differences, before they are repaired."""


class SourceHooks(Protocol):
    """One registered plugin implements these: where cluster objects come from. Constructed as ``Source(options)``."""

    @hookspec(firstresult=True)
    def polyplane_source_start(self, emit: Callable[[SourceEvent], None], dialects: Sequence[Dialect]) -> bool:
        """Begin to deliver events through ``emit``, from threads of the source's own; return True at once.

        ``dialects`` are the policy APIs that somebody reads, for sources that must ask for objects by their kind.

        ``emit`` only queues and may be called from any thread. The source emits every object it has, then
        `polyplane.cluster.model.InSync` once, then changes as they happen. It never emits InSync before everything it could
        read has been emitted.
        """
        ...

    @hookspec(firstresult=True)
    def polyplane_source_stop(self) -> bool:
        """Stop delivering and release everything; after it returns ``emit`` is not called any more. Returns True."""
        ...


class DialectHooks(Protocol):
    """Each registered plugin implements these for one or several policy APIs. Constructed as ``Dialect()``."""

    @hookspec
    def polyplane_dialects(self) -> Iterable[Dialect]:
        """Return the policy APIs this plugin translates."""
        ...
