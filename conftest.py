"""Settings of all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from polyplane_conformance.needs import missing

# How long an example takes says more about the machine than about the code: several tests run next to each other, and others do too.
settings.register_profile("polyplane", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("polyplane")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine cannot do or nobody asked for, and say what to do about it."""
    for item in items:
        things = [thing for marker in item.iter_markers("needs") for thing in marker.args]
        # The conformance suite sees to this itself, as it runs elsewhere too; whoever asks for its packets is told by a failure.
        if item.get_closest_marker("netns") and not item.get_closest_marker("tier"):
            things.append("root")
        options = [thing for thing in things if thing.startswith("--")]
        reasons = [f"only with {option}" for option in options if not config.getoption(option, default=False)]
        reasons += missing(*(thing for thing in things if thing not in options))
        if reasons:
            item.add_marker(pytest.mark.skip(reason="; ".join(reasons)))
