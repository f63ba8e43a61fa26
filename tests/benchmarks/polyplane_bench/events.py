"""Section events: from the change of an object at the API server to its effect on the wire, through the agent and every backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Final

from polyplane_bench.figures import Figure, Samples
from polyplane_bench.probe import WrongStateError
from polyplane_bench.rig import REMOTE, Bustle, Rig, policy
from polyplane_bench.settings import Settings, Size

#: Events a second while others change.
RATE: Final = 200
_SERVER: Final = {"bench/pod": "server"}

#: Seconds between two events, so that they are not gathered with each other.
_PAUSE: Final = 0.05


def measure(settings: Settings) -> tuple[Figure, ...]:
    """Measure each backend with few and with many policies there, quiet and under load."""
    full = settings.size is Size.FULL
    samples = Samples()
    for backend in settings.backends:
        for policies in (100, 10_000) if full else (100,):
            with Rig.build(backend, policies) as rig:
                _prepare(rig)
                first = rig.start()
                rig.settle(0.5)
                rig.probe.until_closed()
                for rate in (0, RATE):
                    for peers in _crowds(full=full, policies=policies):
                        settings.say(
                            f"events: {backend}, {policies} policies, {rate} other events/s, {peers} peers (started in {first.seconds:.2f} s)"
                        )
                        case = {"backend": backend, "policies": policies, "rate": rate, "peers": peers}
                        cpu, wall = rig.cpu(), time.monotonic()
                        with Bustle(rig, rate) if rate else nullcontext():
                            for kind, seconds in _toggles(rig, peers, 6 if full else 4, settings.say):
                                samples.add("event to wire", "ms", seconds * 1000, **case, event=kind)
                        samples.add("agent, CPU", "%", 100 * (rig.cpu() - cpu) / (time.monotonic() - wall), **case)
                    applies = [apply.seconds * 1000 for apply in rig.applies[1:]]
                    for each in applies:
                        samples.add("apply", "ms", each, backend=backend, policies=policies, rate=rate)
                    rig.applies[1:] = rig.applies[-1:]
    return samples.figures()


def _crowds(*, full: bool, policies: int) -> tuple[int, ...]:
    """Return how many peers to try: how many there are matters where there is much else."""
    return (1, 10, 1000) if full and policies > 1000 else (10,)


def _prepare(rig: Rig) -> None:
    """Put the crowds in place, of pods that nothing else moves; the client, who joins and leaves, is the last of each."""
    crowds = ["ten"] * 9 + ["thousand"] * 999
    for number, crowd in enumerate(crowds):
        rig.put(rig.remote(number if number < REMOTE // 2 else number + REMOTE // 2, crowd=crowd))
    rig.put(rig.client())


def _toggles(rig: Rig, peers: int, times: int, say: Callable[[str], None]) -> Iterator[tuple[str, float]]:
    """Yield kinds of events and the seconds until each was effective: a policy comes, the client leaves and joins, the policy goes.

    A round counts as a whole or not at all: where a step finds that the one before had not been effective, neither is reported.
    """
    crowd = {1: "one", 10: "ten", 1000: "thousand"}[peers]
    allow = policy("allow-crowd", _SERVER, {"crowd": crowd})
    inside, outside = rig.client(crowd=crowd), rig.client()
    steps: tuple[tuple[str, Callable[[], None], Callable[[Callable[[], None]], float]], ...] = (
        ("policy created", lambda: rig.put(allow), rig.probe.opens),
        ("pod no longer a peer", lambda: rig.put(outside), rig.probe.closes),
        ("pod becomes a peer", lambda: rig.put(inside), rig.probe.opens),
        ("policy deleted", lambda: rig.remove(allow), rig.probe.closes),
    )
    rig.put(inside)
    time.sleep(0.3)
    done = refused = 0
    while done < times:
        time.sleep(0.01 * ((done + refused) % 10))  # not in step with anything that is done in rounds
        found = []
        try:
            for kind, change, seconds_until in steps:
                time.sleep(_PAUSE)
                found.append((kind, seconds_until(change)))
            time.sleep(_PAUSE)
            rig.probe.expect_closed()
        except WrongStateError as error:
            refused += 1
            if refused > times:
                raise
            say(f"events: a round is measured again: {error}")
            rig.put(allow)  # whether it was there or not
            rig.remove(allow)
            rig.put(inside)
            time.sleep(1)
            rig.probe.until_closed()
            continue
        yield from found
        done += 1
