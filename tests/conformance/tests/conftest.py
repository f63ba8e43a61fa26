"""The command, as whoever installed it runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def conformance(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``polyplane-conformance`` with these arguments, in the test's own folder or ``where``; more names are its environment."""

    def run(*arguments: object, where: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = [str(Path(sys.executable).with_name("polyplane-conformance")), *map(str, arguments)]
        return subprocess.run(argv, cwd=where, env={**os.environ, **environment}, capture_output=True, text=True, check=False)

    return run
