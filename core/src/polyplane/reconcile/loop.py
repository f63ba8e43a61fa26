"""`Loop`: decides what to do when. A state machine without threads, clocks or signals of its own.

Events are offered with the time they came; `step` does whatever is due and says when it wants to be called again. What it
keeps to:

* Bursts are coalesced: a change is applied after a short quiet, or after a bounded time if there is none.
* The backend is not touched before the store is in sync, and at the first touch it reads back what an earlier run left.
* After a failure or drift the kernel's state is uncertain: the next delta starts from an empty base, so the backend reads back.
* A retryable failure is tried again with jittered, exponential back-off. A refused delta is tried again when the wanted state
  changes, or after a long pause. Until then, what was in force stays in force.
* The audit runs only while everything is in force: there is nothing to compare with otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import structlog

from polyplane.cluster.model import Change, ClusterPolicy, InSync, ObjectKey, Pod, PutObject, RemoveObject, SourceEvent
from polyplane.cluster.problems import Problem, Severity
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.compile.places import Places
from polyplane.compile.strangers import is_stranger
from polyplane.errors import ApplyError, PolyplaneError
from polyplane.hookspecs import Arrival, Followed
from polyplane.ir.cidr import Cidr
from polyplane.ir.delta import Delta
from polyplane.ir.program import EMPTY, Options, Program
from polyplane.plugins import Dataplane, Observers
from polyplane.reconcile.diff import diff
from polyplane.reconcile.reports import Reports

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.loop")

#: Failures in a row after which a caller that cannot wait for ever should give up.
HOPELESS_ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All times in seconds."""

    #: Quiet to wait for before a change is applied, and how long to wait for it at most.
    coalesce: float = 0.01
    coalesce_max: float = 0.1
    #: Events after which a batch is not extended any more, whatever the time.
    batch: int = 10_000
    #: Between audits; 0: never.
    audit_interval: float = 300
    #: Between readings of the rules' counters, if anybody wants them, and of fill levels, if the dataplane has such.
    count_interval: float = 15
    #: Between readings of events about packets, if anybody wants them.
    event_interval: float = 1
    #: First pause after a retryable failure; it doubles up to the longest.
    retry_first: float = 0.5
    retry_max: float = 30
    #: Pause after a delta that was refused for good, if the wanted state does not change earlier.
    refused_pause: float = 60


class Loop:
    """Drives one store, one compiler and one dataplane. Everything happens inside `offer` and `step`."""

    def __init__(
        self,
        *,
        store: Store,
        compiler: Compiler,
        dataplane: Dataplane,
        observers: Observers,
        timing: Timing,
        detect_addresses: Callable[[], frozenset[Cidr]] | None = None,
        random: Random | None = None,
    ) -> None:
        self._store: Final = store
        self._compiler: Final = compiler
        self._dataplane: Final = dataplane
        self._observers: Final = observers
        self._timing = timing
        self._detect_addresses: Final = detect_addresses
        self._random: Final = random or Random()  # noqa: S311  # jitter is no secret
        #: Events and when they came.
        self._pending: list[tuple[SourceEvent, float]] = []
        self._first_offer = 0.0
        self._flush_at: float | None = None
        self._target = compiler.program
        #: What the kernel holds, as far as we know; meaningless while `_uncertain`.
        self._base = EMPTY
        self._uncertain = True
        self._attempt = 0
        self._refused = False
        self._retry_at: float | None = None
        self._audit_at: float | None = None
        self._reports: Final = Reports(dataplane, observers, count_interval=timing.count_interval, event_interval=timing.event_interval)
        self._reported_problems: Mapping[str, Problem] = {}
        self._reported_gaps: Mapping[ObjectKey, tuple[str, ...]] = {}
        self.last_error: PolyplaneError | None = None

    @property
    def in_force(self) -> bool:
        """Whether everything offered so far has been applied."""
        return self._store.in_sync and not self._pending and not self._uncertain and self._base is self._target

    @property
    def hopeless(self) -> bool:
        """Whether more of the same will hardly help: the last delta was refused for good, or failed a few times in a row."""
        return self._refused or self._attempt >= HOPELESS_ATTEMPTS

    @property
    def gathering(self) -> bool:
        """Whether events wait for more to come, and nothing else is due before `step` asked to be called again."""
        return bool(self._pending)

    def offer(self, event: SourceEvent, now: float) -> None:
        """Take an event in; it is looked at by a later `step`."""
        if not self._pending:
            self._first_offer = now
        self._pending.append((event, now))
        if isinstance(event, InSync) or len(self._pending) >= self._timing.batch:
            self._flush_at = now
        else:
            self._flush_at = min(now + self._timing.coalesce, self._first_offer + self._timing.coalesce_max)

    def configure(self, *, timing: Timing, options: Options) -> None:
        """Take over settings that may change while running."""
        if timing.audit_interval != self._timing.audit_interval:
            self._audit_at = None
        self._timing = timing
        self._aim(self._compiler.set_options(options))

    def locate(self, places: Places) -> None:
        """Take over where on this node pods are."""
        self._aim(self._compiler.set_places(places))

    def step(self, now: float) -> float | None:
        """Do what is due at ``now``; return when to call again at the latest, None: not before the next event."""
        if self._pending and self._flush_at is not None and now >= self._flush_at:
            self._absorb(now)
        if self._store.in_sync:
            self._audit_if_due(now)
            self._settle(now)
            if self._settled:
                self._reports.step(now, self._base)
            if self._audit_at is None and self._timing.audit_interval > 0 and self._settled:
                self._audit_at = now + self._timing.audit_interval
        due = [self._flush_at if self._pending else None]
        if self._store.in_sync:
            due += [self._audit_at, self._reports.due] if self._settled else [self._retry_at]
        return min((at for at in due if at is not None), default=None)

    @property
    def _settled(self) -> bool:
        return not self._uncertain and self._base is self._target

    def _absorb(self, now: float) -> None:
        """Let the store and the compiler follow the pending events."""
        pending, self._pending, self._flush_at = self._pending, [], None
        was_in_sync = self._store.in_sync
        started = time.perf_counter()
        changes: list[Change] = []
        arrivals: list[Arrival] = []
        for event, at in pending:
            made = self._store.apply(event)
            changes += made
            if made and was_in_sync and isinstance(event, PutObject | RemoveObject):
                arrivals.append(Arrival(key=event.key, at=at, new=_is_new(made)))
        before = self._target
        self._aim(self._compiler.update(changes))
        seconds = time.perf_counter() - started
        self._report()
        if self._store.in_sync and not was_in_sync:
            self._report_in_sync()
        self._observers.followed(
            Followed(
                program=self._target,
                in_sync=self._store.in_sync,
                events=len(pending),
                waited=max(0.0, now - pending[0][1]),
                seconds=seconds,
                objects={
                    "Pod": len(self._store.pods),
                    "Namespace": len(self._store.namespaces),
                    "Node": len(self._store.nodes),
                    "Policy": len(self._store.policies),
                },
                problems=self._reported_problems,
                unsupported=self._reported_gaps,
                arrivals=tuple(arrivals) if self._target is not before else (),
                policies=self._store.policies.keys(),
            )
        )

    def _aim(self, program: Program) -> None:
        if program is self._target:
            return
        self._target = program
        if self._refused:
            # Another wanted state is another chance.
            self._refused = False
            self._retry_at = None

    def _settle(self, now: float) -> None:
        """Bring the target into force, unless it is or a pause is not over."""
        if self._settled or (self._retry_at is not None and now < self._retry_at):
            return
        delta = diff(EMPTY if self._uncertain else self._base, self._target)
        if not delta.operations and not self._uncertain:
            self._base = self._target
            return
        started = time.perf_counter()
        try:
            result = self._dataplane.apply(delta)
        except PolyplaneError as error:
            self._failed(delta, error, now)
            return
        self._base = delta.target
        self._uncertain = self._refused = False
        self._attempt = 0
        self._retry_at = self.last_error = None
        self._observers.applied(delta, result, time.perf_counter() - started)

    def _failed(self, delta: Delta, error: PolyplaneError, now: float) -> None:
        self._uncertain = True
        self._attempt += 1
        self.last_error = error
        self._refused = not (isinstance(error, ApplyError) and error.retryable)
        if self._refused:
            self._retry_at = now + self._timing.refused_pause
        else:
            # 2**16 pauses are longer than any longest pause; the bound only keeps the number small.
            pause = min(self._timing.retry_max, self._timing.retry_first * 2 ** min(self._attempt - 1, 16))
            self._retry_at = now + pause * self._random.uniform(0.5, 1.0)
        self._observers.failed(delta, error, self._attempt)

    def _audit_if_due(self, now: float) -> None:
        if self._audit_at is None or now < self._audit_at or not self._settled:
            return
        self._audit_at = now + self._timing.audit_interval if self._timing.audit_interval > 0 else None
        try:
            if self._detect_addresses is not None:
                self._aim(self._compiler.set_node_addresses(self._detect_addresses()))
            drifts = self._dataplane.audit(self._base)
        except PolyplaneError as error:
            _log.warning("audit failed, the next one is on schedule", error=str(error))
            return
        if drifts:
            self._uncertain = True
            self._observers.drifted(drifts)

    def _report(self) -> None:
        """Log problems that are new and those that are over."""
        problems = dict(self._store.problems)
        for name, problem in problems.items():
            if self._reported_problems.get(name) != problem:
                log = _log.error if problem.severity is Severity.ERROR else _log.warning
                log(
                    "problem",
                    where=problem.where,
                    object=problem.object,
                    message=problem.message,
                    remedy=problem.remedy,
                    meanwhile=problem.consequence,
                )
        for name in self._reported_problems.keys() - problems.keys():
            _log.info("problem is over", problem=name)
        self._reported_problems = problems
        gaps = self._compiler.unsupported
        for key, reasons in gaps.items():
            if self._reported_gaps.get(key) != reasons:
                _log.error("the backend cannot enforce this, the traffic is denied", object=str(key), reasons=list(reasons))
        self._reported_gaps = gaps

    def _report_in_sync(self) -> None:
        pods = self._store.pods
        _log.info("in sync", pods=len(pods), policies=len(self._store.policies), endpoints=len(self._target.endpoints))
        if pods and all(map(is_stranger, self._target.endpoints)):
            nodes = sorted({pod.node for pod in pods.values() if pod.node})
            _log.warning(
                "no pod is on this node, nothing to enforce; is the node's name right?", node=self._compiler.node, pods_are_on=nodes
            )


def _is_new(changes: list[Change]) -> bool:
    """Whether a policy came to be, or a pod came to have an address."""
    match changes[-1]:
        case Change(old=None, new=ClusterPolicy()):
            return True
        case Change(old=old, new=Pod() as new):
            return bool(new.addresses) and not (isinstance(old, Pod) and old.addresses)
        case _:
            return False
