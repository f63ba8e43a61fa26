"""`OpenTelemetryObserver`: a trace for every change of the kernel, from the event of the source to the end of the apply.

Needs the extra ``polyplane[otel]``. Where traces go is said by OpenTelemetry's own variables, such as
``OTEL_EXPORTER_OTLP_ENDPOINT`` and ``OTEL_TRACES_SAMPLER``; its exporter has a thread and a bounded queue of its own, so a
collector that is away delays nothing.

::

    enforce        oldest event of the change ............................ in the kernel
      queue        oldest event ... taken up
      compile                       taken up ... program
      apply                                      (attempts that failed: events)   apply ... in the kernel
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from polyplane.errors import ConfigError
from polyplane.hookspecs import Applied, Arrival, Followed, hookimpl
from polyplane.ir.delta import Delta

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

#: Objects that a span names at most: a first sync has them all.
MAX_OBJECTS: Final = 100
_NANO: Final = 1_000_000_000


class OpenTelemetryObserver:
    """Makes one trace for each apply that followed from events. It has no options."""

    def __init__(self, options: Mapping[str, object], provider: TracerProvider | None = None) -> None:
        """Find the tracer.

        :param provider: whose tracer to use; default: the process's, else one that exports by OTLP over HTTP
        :raises ConfigError: any option, or the extra is not installed
        """
        if options:
            raise ConfigError(
                f"observer.opentelemetry: unknown option {next(iter(options))!r}; it has none, OpenTelemetry's variables say where to"
            )
        try:
            from opentelemetry import trace  # noqa: PLC0415  # only here if it is wanted

            self._trace = trace
            self._tracer = trace.get_tracer("polyplane", version("polyplane"), provider or _provider())
        except ImportError as error:
            raise ConfigError(f"observer.opentelemetry: {error}; install polyplane[otel]") from error
        #: The change that waits to be in the kernel.
        self._span: Span | None = None
        self._objects = 0

    @hookimpl
    def polyplane_followed(self, followed: Followed) -> None:
        """Begin a trace if this made a difference, or add to the one that waits."""
        if not followed.arrivals:
            return
        now = time.monotonic()
        taken_up = now - followed.seconds
        first = min(arrival.at for arrival in followed.arrivals)
        if self._span is None:
            self._objects = 0
            self._span = self._tracer.start_span("enforce", start_time=_since_epoch(first))
        context = self._trace.set_span_in_context(self._span)
        for name, start, end in (("queue", first, taken_up), ("compile", taken_up, now)):
            child = self._tracer.start_span(name, context=context, start_time=_since_epoch(start))
            if name == "compile":
                child.set_attribute("polyplane.events", followed.events)
            child.end(_since_epoch(end))
        for arrival in followed.arrivals:
            self._name(self._span, arrival)

    def _name(self, span: Span, arrival: Arrival) -> None:
        self._objects += 1
        if self._objects <= MAX_OBJECTS:
            attributes: dict[str, str | bool] = {"polyplane.object": str(arrival.key), "polyplane.new": arrival.new}
            span.add_event("arrival", attributes, timestamp=_since_epoch(arrival.at))

    @hookimpl
    def polyplane_failed(self, error: Exception, attempt: int) -> None:
        """Note an attempt on the trace that waits."""
        if self._span is not None:
            self._span.add_event("apply failed", {"polyplane.attempt": attempt, "exception.message": str(error)})

    @hookimpl
    def polyplane_applied(self, delta: Delta, result: Applied, seconds: float) -> None:
        """End the trace."""
        span, self._span = self._span, None
        if span is None:
            return
        now = time.monotonic()
        context = self._trace.set_span_in_context(span)
        child = self._tracer.start_span("apply", context=context, start_time=_since_epoch(now - seconds))
        child.set_attribute("polyplane.operations", result.operations)
        child.end(_since_epoch(now))
        span.set_attribute("polyplane.revision", delta.target.revision)
        span.set_attribute("polyplane.objects", self._objects)
        span.end(_since_epoch(now))


def _since_epoch(at: float) -> int:
    """Nanoseconds since the epoch of a time on the monotonic clock."""
    return time.time_ns() - int((time.monotonic() - at) * _NANO)


def _provider() -> TracerProvider:
    """Return the process's provider if somebody has set one, else our own."""
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    current = trace.get_tracer_provider()
    if not isinstance(current, trace.ProxyTracerProvider):
        return current
    ours = Resource.create({"service.name": "polyplane", "service.instance.id": socket.gethostname()})
    resource = ours.merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
    own = TracerProvider(resource=resource)
    own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return own
