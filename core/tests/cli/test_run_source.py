"""Which source the flags of ``run`` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyplane.cli.run import source_flags
from polyplane.errors import ConfigError


def test_a_kubeconfig_means_the_source_kubernetes() -> None:
    for source in (None, "kubernetes"):
        flags = source_flags(source, None, Path("k"))
        assert flags["source"] == "kubernetes"
        assert flags["source_options"] == {"kubernetes": {"kubeconfig": "k"}}
        # Who writes Events and status asks the same server.
        assert flags["observer_options"] == {"kubernetes-events": {"kubeconfig": "k"}, "kubernetes-status": {"kubeconfig": "k"}}


@pytest.mark.parametrize(("source", "directory"), [("manifests", None), (None, Path("d")), ("somewhere/else", None)])
def test_a_kubeconfig_is_for_no_other_source(source: str | None, directory: Path | None) -> None:
    with pytest.raises(ConfigError, match="--kubeconfig is for the source kubernetes"):
        source_flags(source, directory, Path("k"))
