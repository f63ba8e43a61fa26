"""`Barrage`: probes at a steady rate while something happens, and what got lost or leaked meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from polyplane_conformance.probe.client import Prober
from polyplane_conformance.probe.model import Outcome, Probe, Result
from polyplane_conformance.probe.wire import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One probe of a barrage: when it was sent (seconds of `time.monotonic`), which it was, whether it should pass, what became of it."""

    when: float
    probe: Probe
    expected: bool
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrageReport:
    """All shots by time."""

    shots: tuple[Shot, ...]

    @property
    def lost(self) -> tuple[Shot, ...]:
        """Probes that should have passed and did not."""
        return tuple(shot for shot in self.shots if shot.expected and not shot.result.allowed)

    @property
    def leaked(self) -> tuple[Shot, ...]:
        """Probes that passed and should not have."""
        return tuple(shot for shot in self.shots if not shot.expected and shot.result.allowed)

    @property
    def broken(self) -> tuple[Shot, ...]:
        """Probes that the sandbox itself could not send or serve."""
        return tuple(shot for shot in self.shots if shot.result.outcome is Outcome.BROKEN)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, nothing leaked, and anything was sent at all."""
        return bool(self.shots) and not self.lost and not self.leaked

    @property
    def outage(self) -> float:
        """Seconds from the first to the last lost probe."""
        return self.lost[-1].when - self.lost[0].when if self.lost else 0.0

    def __str__(self) -> str:
        return f"{len(self.shots)} probes, {len(self.lost)} lost (over {self.outage * 1000:.0f} ms), {len(self.leaked)} leaked"


class Barrage:
    """A running barrage; a context manager that stops it. The report is complete after `stop`."""

    def __init__(self, prober: Prober, expected: Mapping[Probe, bool], orders: list[Order], *, rate: float, timeout: float) -> None:
        self._prober = prober
        self._expected = list(expected.items())
        self._number = prober.barrage(orders, rate=rate, timeout=timeout)
        self._report: BarrageReport | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> BarrageReport:
        """Send no more, wait for the last outcome, report. Calling it again returns the same report."""
        if self._report is None:
            shots = []
            for when, index, result in self._prober.cease(self._number):
                probe, expected = self._expected[index]
                shots.append(Shot(when=when, probe=probe, expected=expected, result=result))
            self._report = BarrageReport(shots=tuple(shots))
        return self._report
