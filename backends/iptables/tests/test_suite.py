"""The conformance suite's behaviours about open connections and economy, with recheck by mark.

By direction the suite runs whole. These are modules of the suite, run as one who has installed it would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.netns

_SUITE: Final = "polyplane_conformance.suite.test_behaviour_"


@pytest.mark.parametrize(
    ("options", "modules"),
    [("variant=nft,recheck_mark=0xff0", ("connections", "economy")), ("variant=legacy,recheck_mark=0x20", ("connections",))],
)
def test_by_mark_connections_behave_as_by_direction(options: str, modules: tuple[str, ...], tmp_path: Path) -> None:
    """With many bits, and with one that is cleared each time."""
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "--pyargs", *(f"{_SUITE}{module}" for module in modules)]
    argv += ["--polyplane-backend", f"iptables:{options}", "--polyplane-tier", "netns", "--polyplane-report", str(report)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(report.read_text())["results"]
    assert len(outcomes) >= 5 * len(modules)
