"""Section churn: much at once. A thousand pods restart, 250 policies come at once, the agent dies and starts again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from polyplane_bench.core_case import memory_of
from polyplane_bench.figures import Figure, Samples
from polyplane_bench.probe import Counted
from polyplane_bench.rig import LOCAL, MARKER, REMOTE, Rig, policy
from polyplane_bench.settings import Settings, Size

#: Policies created at once.
AT_ONCE: Final = 250
_SERVER: Final = {"bench/pod": "server"}
_CLIENT: Final = {"bench/pod": "client"}


def measure(settings: Settings) -> tuple[Figure, ...]:
    """Let every backend through all of it, with many policies there."""
    full = settings.size is Size.FULL
    samples = Samples()
    for backend in settings.backends:
        policies = 10_000 if full else 500
        settings.say(f"churn: {backend}, {policies} policies")
        with Rig.build(backend, policies) as rig:
            began = time.monotonic()
            rig.put(policy("allow-client", _SERVER, _CLIENT))
            rig.put(policy("marker", _SERVER, {"marker": "yes"}, port=MARKER))
            rig.put(rig.client())
            first = rig.start()
            case: dict[str, str | int] = {"backend": backend, "policies": policies}
            samples.add("first start, time", "s", first.at - began, **case)
            samples.add("first start, apply", "s", first.seconds, **case)
            samples.add("first start, operations", "", first.operations, **case)
            rig.probe.until_open()
            rig.settle()
            _restart_pods(rig, samples, case)
            _many_policies(rig, samples, case)
            _restart_agent(rig, samples, case)
            samples.add("agent, memory", "MiB", memory_of(rig.pid, "VmRSS"), **case)
            samples.add("agent, peak memory", "MiB", memory_of(rig.pid, "VmHWM"), **case)
    return samples.figures()


def _restart_pods(rig: Rig, samples: Samples, case: dict[str, str | int]) -> None:
    """Delete every remote pod and create it anew with another address; all of them are peers of policies here."""

    def write() -> None:
        began = time.monotonic()
        for number in range(REMOTE):
            rig.remove(rig.remote(number))
            rig.put(rig.remote(number, generation=1))
        samples.add("pods restarted, written", "s", time.monotonic() - began, **case)
        rig.put(rig.client(marker="yes"))  # the watch delivers in order: with this, all the others are there

    _upheaval(rig, samples, case, "pods restarted", write)
    rig.put(rig.client())
    rig.marker.until_closed()


def _many_policies(rig: Rig, samples: Samples, case: dict[str, str | int]) -> None:
    """Create policies for all pods of the node at once, then remove them."""
    made = [
        policy(f"new-{number}", {"bench/pod": f"local-{number % LOCAL}"}, {"group": f"g{number % 50}"}, port=9000)
        for number in range(AT_ONCE - 1)
    ]
    made.append(policy("new-marker", _SERVER, _CLIENT, port=MARKER))

    def write() -> None:
        for each in made:
            rig.put(each)

    _upheaval(rig, samples, case, "policies at once", write)
    for each in made:
        rig.remove(each)
    rig.marker.until_closed()
    rig.settle()


def _upheaval(rig: Rig, samples: Samples, case: dict[str, str | int], what: str, write: Callable[[], None]) -> None:
    """Let something be written whose last object opens the marker's way; measure until it does, and what it is to agent and traffic."""
    rig.settle()
    before, cpu = len(rig.applies), rig.cpu()
    with rig.probe.watching() as counted:
        seconds = rig.marker.opens(write)
        rig.settle()
    applies = rig.applies[before:]
    samples.add(f"{what}, time", "s", seconds, **case)
    samples.add(f"{what}, operations", "", sum(apply.operations for apply in applies), **case)
    samples.add(f"{what}, applies", "", len(applies), **case)
    samples.add(f"{what}, CPU", "s", rig.cpu() - cpu, **case)
    _add_losses(samples, case, what, counted)


def _add_losses(samples: Samples, case: dict[str, str | int], what: str, counted: Counted) -> None:
    samples.add(f"{what}, lost", "", counted.sent - counted.arrived, **case)
    samples.add(f"{what}, sent", "", counted.sent, **case)


def _restart_agent(rig: Rig, samples: Samples, case: dict[str, str | int]) -> None:
    """Kill the agent and start it again; nothing has changed meanwhile."""
    with rig.probe.watching() as counted:
        time.sleep(0.2)
        rig.kill()
        began = time.monotonic()
        first = rig.start()
        cpu = rig.cpu()
        time.sleep(0.2)
    samples.add("agent restarted, time", "s", first.at - began, **case)
    samples.add("agent restarted, apply", "s", first.seconds, **case)
    samples.add("agent restarted, operations", "", first.operations, **case)
    samples.add("agent restarted, CPU", "s", cpu, **case)
    _add_losses(samples, case, "agent restarted", counted)
