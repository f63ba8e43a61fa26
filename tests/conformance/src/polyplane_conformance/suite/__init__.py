"""The suite: run it with ``pytest --pyargs polyplane_conformance.suite --polyplane-backend NAME`` or ``polyplane-conformance run``."""
