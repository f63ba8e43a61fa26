"""`Drain`: how to know that a slow switch has looked at every packet sent so far.

A switch in userspace reads one port after the other, each first come first served, and on a busy machine the queue of a pod's
port may take seconds. So silence is no verdict before the queues are through. An echo request of the pod's own node, which no
policy touches, tells: the pod's answer joins the queue of its port behind everything that the pod has sent before.
One such round passes every queue once. The longest way of a probe is to be looked up as a neighbour and answered, to open a TCP
connection, and to get its banner: six queues in a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from polyplane_conformance.probe.attempts import Attempt, attempt
from polyplane_conformance.probe.loop import Loop
from polyplane_conformance.probe.model import ICMP, ICMPV6, family_of
from polyplane_conformance.probe.place import Answer, Place
from polyplane_conformance.probe.wire import Order

_PASSES: Final = 6
#: Seconds after which an echo request is repeated: it may have met a full queue.
_AGAIN: Final = 0.2


class Queue(NamedTuple):
    """The queue of a pod's port: its node asks the pod at all its addresses, since a switch may know it by one of them alone."""

    node: str
    addresses: Sequence[str]


class Drain:
    """Passes all of some queues as often as the longest way needs. ``done`` is called then, or after ``patience`` seconds."""

    def __init__(self, loop: Loop, places: Mapping[str, Place], queues: Sequence[Queue], patience: float, done: Callable[[], None]) -> None:
        self._loop = loop
        self._places = places
        self._queues = queues
        self._done = done
        self._deadline = time.monotonic() + patience
        self._passes = 0
        self._echoes: dict[int, list[Attempt]] = {}
        loop.later(0, self._pass)

    def _pass(self) -> None:
        self._passes += 1
        if self._passes > _PASSES or not self._queues:
            self._done()
            return
        for number, queue in enumerate(self._queues):
            orders = [Order.plain(queue.node, address, ICMP if family_of(address) == 4 else ICMPV6) for address in queue.addresses]
            self._echoes[number] = [attempt(self._places[queue.node], order, partial(self._passed, number)) for order in orders]
        self._ask(self._passes)

    def _ask(self, number: int) -> None:
        if number != self._passes or not self._echoes:
            return
        if time.monotonic() > self._deadline:
            for queue in list(self._echoes):
                self._close(queue)
            self._done()
            return
        self._loop.later(_AGAIN, lambda: self._ask(number))
        for echo in [echo for echoes in self._echoes.values() for echo in echoes]:
            echo.send()

    def _passed(self, number: int, _answer: Answer) -> None:
        if self._close(number) and not self._echoes:
            self._loop.later(0, self._pass)

    def _close(self, number: int) -> bool:
        """Wait for a queue no more; return whether it was waited for."""
        echoes = self._echoes.pop(number, [])
        for echo in echoes:
            echo.close()
        return bool(echoes)
