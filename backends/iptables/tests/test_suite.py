"""The conformance suite's behaviours about open connections, with recheck by mark.

By direction the suite runs whole. This is one module of it, run as one who has installed it would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.netns

_MODULE: Final = "polyplane_conformance.suite.test_behaviour_connections"


@pytest.mark.parametrize("options", ["variant=nft,recheck_mark=0xff0", "variant=legacy,recheck_mark=0x20"])
def test_by_mark_connections_behave_as_by_direction(options: str, tmp_path: Path) -> None:
    """With many bits, and with one that is cleared each time."""
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "--pyargs", _MODULE]
    argv += ["--polyplane-backend", f"iptables:{options}", "--polyplane-tier", "netns", "--polyplane-report", str(report)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["counts"]["passed"] > 5
