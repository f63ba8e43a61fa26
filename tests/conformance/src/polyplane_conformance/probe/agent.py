"""The prober process: ``python -m polyplane_conformance.probe.agent <control descriptor> <namespace prefix>``.

One process serves a whole sandbox: sockets are made inside each namespace and polled together, so nine pods need no nine
interpreters, and no probe starts a process. It lives as long as its client's end of the control socket. When that closes,
even by kill -9, it removes the sandbox's namespaces and ends: a crashed run leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from polyplane_conformance import netns
from polyplane_conformance.probe.flows import Barrage, Flow, flow
from polyplane_conformance.probe.loop import Loop
from polyplane_conformance.probe.model import Outcome
from polyplane_conformance.probe.numbers import Numbers
from polyplane_conformance.probe.place import Answer, Place
from polyplane_conformance.probe.queues import Queue
from polyplane_conformance.probe.rounds import Round, Settings, Trial
from polyplane_conformance.probe.servers import serve
from polyplane_conformance.probe.wire import Lines, Message, Order, encode

#: Probes of one round at a time; more would want more descriptors than a process commonly gets.
_LARGEST_ROUND: Final = 3000


class Agent:
    """Carries out what the client asks; each method named ``op_…`` is one request."""

    def __init__(self, control: socket.socket, prefix: str) -> None:
        self._control = control
        self._prefix = prefix
        self._lines = Lines()
        self._loop = Loop()
        self._places: dict[str, Place] = {}
        self._numbers = Numbers()
        self._flows: dict[int, Flow] = {}
        self._barrages: dict[int, Barrage] = {}
        self._loop.watch(control.fileno(), self._read)

    def run(self) -> None:
        """Serve until the client is gone, then clean up."""
        try:
            self._loop.run()
        finally:
            for place in self._places.values():
                place.close()
            for name in netns.names():
                if name.startswith(self._prefix):
                    netns.delete(name)

    def _read(self, _events: int) -> None:
        try:
            data = self._control.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self._loop.stop()
            return
        for message in self._lines.feed(data):
            reply = functools.partial(self._reply, message["id"])
            try:
                operation: Callable[..., None] = getattr(self, f"op_{message['op']}")
                operation(reply, **message["arguments"])
            except (OSError, KeyError) as error:
                reply({"error": str(error) or type(error).__name__})

    def _reply(self, number: int, content: Message) -> None:
        with contextlib.suppress(ConnectionError):  # the client is gone, which the next read notices
            self._control.sendall(encode({"id": number, **content}))

    def op_enter(self, reply: Callable[[Message], None], *, name: str, path: str) -> None:
        """Make a namespace known."""
        self._places[name] = Place(self._loop, name, Path(path), self._numbers)
        reply({})

    def op_leave(self, reply: Callable[[Message], None], *, name: str) -> None:
        """Close everything in a namespace."""
        self._places.pop(name).close()
        reply({})

    def op_serve(self, reply: Callable[[Message], None], *, place: str, identity: str, ports: list[tuple[int, int]]) -> None:
        """Answer on ports."""
        serve(self._places[place], identity, ports)
        reply({})

    def op_run(
        self, reply: Callable[[Message], None], *, orders: list[list[Any]], settings: list[float], queues: list[list[str]], at_once: int
    ) -> None:
        """Run probes to their verdicts, in rounds of a bearable size."""
        pending = [Order(*order) for order in orders]
        waited_in = [Queue(*queue) for queue in queues]
        size = min(at_once, _LARGEST_ROUND)
        attempts, *times = settings
        chosen = Settings(int(attempts), *times)
        results: list[list[Any]] = []

        def next_round() -> None:
            Round(self._loop, self._places, pending[len(results) : len(results) + size], chosen, done, queues=waited_in)

        def done(trials: list[Trial]) -> None:
            results.extend(_row(trial) for trial in trials)
            if len(results) < len(pending):
                next_round()
            else:
                reply({"results": results})

        next_round()

    def op_open(self, reply: Callable[[Message], None], *, order: list[Any], interval: float, pushed: bool) -> None:
        """Open a stream; its number is the reply."""
        chosen = Order(*order)
        number = len(self._flows) + 1
        self._flows[number] = flow(self._places[chosen.place], chosen, interval, pushed=pushed)
        reply({"stream": number})

    def op_state(self, reply: Callable[[Message], None], *, stream: int) -> None:
        """Say how a stream does."""
        reply({"state": self._flows[stream].state()})

    def op_close(self, reply: Callable[[Message], None], *, stream: int) -> None:
        """End a stream."""
        self._flows[stream].close()
        reply({"state": self._flows[stream].state()})

    def op_barrage(self, reply: Callable[[Message], None], *, orders: list[list[Any]], rate: float, timeout: float) -> None:
        """Start a barrage; its number is the reply."""
        number = len(self._barrages) + 1
        self._barrages[number] = Barrage(self._loop, self._places, [Order(*order) for order in orders], rate, timeout)
        reply({"barrage": number})

    def op_cease(self, reply: Callable[[Message], None], *, barrage: int) -> None:
        """Stop a barrage; the reply comes when its last probe has an outcome."""
        chosen = self._barrages[barrage]
        chosen.stop()

        def look() -> None:
            if chosen.idle:
                reply({"shots": [[shot.when, shot.index, *_cells(shot.answer), shot.seconds] for shot in chosen.shots]})
            else:
                self._loop.later(0.02, look)

        look()


def _cells(answer: Answer) -> list[Any]:
    return [answer.outcome.value, answer.who, answer.detail]


def _row(trial: Trial) -> list[Any]:
    answer = trial.answer or Answer(Outcome.BROKEN, "", "no verdict")
    return [*_cells(answer), trial.finished - trial.started, trial.packets]


def main() -> None:
    """Run the prober on an inherited socket."""
    descriptor, prefix = int(sys.argv[1]), sys.argv[2]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Agent(socket.socket(fileno=descriptor), prefix).run()


if __name__ == "__main__":
    main()
