"""What the source counts for ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

EVENTS: Final = Counter("polyplane_source_events", "Objects and deletions that the API server sent", ["kind", "type"])
SYNCS: Final = Counter("polyplane_source_syncs", "Times that a resource was read in full", ["kind", "method"])
STREAMS: Final = Counter("polyplane_source_watches", "Watches that were opened", ["kind"])
FAILURES: Final = Counter("polyplane_source_failures", "Requests to the API server that failed or were cut off", ["kind", "reason"])
SYNCED: Final = Gauge("polyplane_source_in_sync", "1 while a resource has been read in full and is being watched", ["kind"])
