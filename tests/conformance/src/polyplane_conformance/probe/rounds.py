"""`Round`: many probes at once, and how silence becomes a verdict.

Silence proves nothing: the machine may be busy, the server dead. So it takes two stages. First every probe is tried a fixed
number of times. Then, for those still silent, the server is asked *in the same moment* along the denied path and along its
twin, a path no policy touches; only when the twin has answered, the denied path has stayed silent after that, and our own
loop was on time meanwhile, is it a denial. A refusal needs an answering twin too, or a closed port would pass for policy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from polyplane_conformance.probe.attempts import Attempt, attempt
from polyplane_conformance.probe.loop import Loop
from polyplane_conformance.probe.model import Outcome
from polyplane_conformance.probe.place import Answer, Place
from polyplane_conformance.probe.queues import Drain, Queue
from polyplane_conformance.probe.wire import Order

#: How late (seconds) the loop may have been while a denial was being proved.
_TOLERABLE_LAG: Final = 0.05
#: Proofs spoilt by our own lateness are repeated so many times at most.
_MOST_PROOFS: Final = 8


class Settings(NamedTuple):
    """How hard to try: packets before the proof, seconds between them, seconds of silence after the twin's answer, seconds to wait for a twin."""

    attempts: int = 2
    interval: float = 0.05
    grace: float = 0.1
    patience: float = 4.0


DEFAULT_SETTINGS: Final = Settings()


class Trial:
    """One probe of a round and what is known about it."""

    __slots__ = ("_attempt", "_report", "answer", "finished", "order", "packets", "started", "waiting")

    def __init__(self, order: Order, report: Callable[[Trial], None]) -> None:
        self.order = order
        self.packets = 0
        #: Still in the first stage, without an answer.
        self.waiting = True
        self.started = self.finished = 0.0
        self.answer: Answer | None = None
        self._attempt: Attempt | None = None
        self._report = report

    def send(self, places: Mapping[str, Place]) -> None:
        """Ask, or ask again."""
        if self.answer is not None:
            return
        if self._attempt is None:
            self.started = time.monotonic()
            place = places.get(self.order.place)
            if place is None:
                self.settle(Answer(Outcome.BROKEN, "", f"no place named {self.order.place!r}"))
                return
            self._attempt = attempt(place, self.order, self.settle)
        self.packets += 1
        self._attempt.send()

    def settle(self, answer: Answer) -> None:
        """Take the first answer; later ones are echoes of retries."""
        if self.answer is None:
            self.answer = answer
            self.finished = time.monotonic()
            self.close()
            self._report(self)

    def revise(self, answer: Answer) -> None:
        """Replace a refusal that turned out to be no policy."""
        self.answer = answer

    def close(self) -> None:
        """Release the sockets."""
        if self._attempt is not None:
            self._attempt.close()


class Round:
    """Runs orders to their verdicts; ``done`` gets them in the orders' order. ``queues`` are those that their packets wait in."""

    def __init__(
        self,
        loop: Loop,
        places: Mapping[str, Place],
        orders: Sequence[Order],
        settings: Settings,
        done: Callable[[list[Trial]], None],
        *,
        queues: Sequence[Queue] = (),
    ) -> None:
        self.loop = loop
        self.places = places
        self.settings = settings
        self._done = done
        self._queues = queues
        self._draining: list[Callable[[], None]] = []
        self._drain_next: list[Callable[[], None]] = []
        self._open = len(orders)
        self._proofs = 0
        self._trials = [Trial(order, self._settled) for order in orders]
        for trial in self._trials:
            loop.later(0, partial(self._try, trial))
        if not orders:
            loop.later(0, self._finish)

    def _try(self, trial: Trial) -> None:
        if trial.answer is None and trial.packets < self.settings.attempts:
            self.loop.later(self.settings.interval, partial(self._try, trial))
            trial.send(self.places)
        else:
            self._settled(trial)

    def _settled(self, trial: Trial) -> None:
        if trial.waiting:
            trial.waiting = False
            self._open -= 1
            if not self._open:
                if any(trial.answer is None for trial in self._trials):
                    self.drained(self._prove)
                else:
                    self._prove()

    def drained(self, callback: Callable[[], None]) -> None:
        """Call back when the queues have let through what has been sent up to now."""
        if not self._queues:
            callback()
            return
        self._drain_next.append(callback)
        if not self._draining:
            self._drain()

    def _drain(self) -> None:
        self._draining, self._drain_next = self._drain_next, []
        if self._draining:
            Drain(self.loop, self.places, self._queues, self.settings.patience, self._let_go)

    def _let_go(self) -> None:
        callbacks, self._draining = self._draining, []
        for callback in callbacks:
            callback()
        if not self._draining:
            self._drain()

    def _prove(self) -> None:
        doubtful: dict[Order, list[Trial]] = {}
        for trial in self._trials:
            if trial.answer is None or trial.answer.outcome is Outcome.REJECTED:
                doubtful.setdefault(trial.order.as_twin(), []).append(trial)
        self._proofs = len(doubtful)
        for twin, trials in doubtful.items():
            Proof(self, twin, trials)
        if not doubtful:
            self._finish()

    def proved(self) -> None:
        """Called by each proof when it is over."""
        self._proofs -= 1
        if not self._proofs:
            self._finish()

    def _finish(self) -> None:
        for trial in self._trials:
            trial.close()
        self._done(self._trials)


class Proof:
    """Settles all doubtful trials against one server."""

    def __init__(self, owner: Round, order: Order, trials: list[Trial]) -> None:
        self._owner = owner
        self._order = order
        self._trials = trials
        self._steps = 0
        self._began = time.monotonic()
        self._step_began = self._began
        self._twin = Trial(order, _nobody)
        owner.loop.later(0, self._step)

    def _step(self) -> None:
        self._steps += 1
        self._step_began = time.monotonic()
        if self._twin.answer is not None:
            self._twin = Trial(self._order, _nobody)
        for trial in self._trials:
            trial.send(self._owner.places)
        self._twin.send(self._owner.places)
        self._owner.loop.later(self._owner.settings.interval, lambda: self._owner.drained(self._look))

    def _look(self) -> None:
        answer = self._twin.answer
        now = time.monotonic()
        if answer is None:
            if now - self._began > self._owner.settings.patience:
                self._conclude(Answer(Outcome.BROKEN, "", f"no answer, nor to {self._order.place}, which no policy concerns"))
            else:
                self._step()
            return
        if answer.outcome is not Outcome.ALLOWED:
            self._conclude(Answer(Outcome.BROKEN, "", f"no answer, nor to {self._order.place}: {answer.detail}"))
            return
        quiet = now - self._twin.finished
        if quiet < self._owner.settings.grace:
            self._owner.loop.later(self._owner.settings.grace - quiet, self._look)
        elif self._owner.loop.lag(self._step_began) > _TOLERABLE_LAG and self._steps < _MOST_PROOFS:
            self._step()
        else:
            self._conclude(None)

    def _conclude(self, trouble: Answer | None) -> None:
        self._twin.close()
        for trial in self._trials:
            if trial.answer is None:
                trial.settle(trouble or Answer(Outcome.DENIED, "", "no answer"))
            elif trial.answer.outcome is Outcome.REJECTED and trouble is not None:
                trial.revise(trouble._replace(detail=f"{trial.answer.detail}; {trouble.detail}"))
        self._owner.proved()


def _nobody(_trial: Trial) -> None:
    """A twin's answer is looked at, not waited for."""
