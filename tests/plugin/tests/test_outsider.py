"""A third party's backend, installed and used as an outsider would: nothing of the repository on its path but what it depends on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1]
HOW_TO = PLUGIN.parents[1] / "docs" / "how-to" / "write-a-backend.md"
SOURCE = PLUGIN / "src" / "polyplane_file" / "__init__.py"

DRIVE = """
import json, sys
from polyplane.ir.program import EMPTY, Options, DenyAction, Program
from polyplane.plugins import load_backend
from polyplane.reconcile.diff import diff

backend = load_backend("file", {"path": sys.argv[1]})
target = Program(revision=1, options=Options(deny_action=DenyAction.REJECT))
first = backend.apply(diff(EMPTY, target)).operations
again = load_backend("file", {"path": sys.argv[1]}).apply(diff(EMPTY, target)).operations
clean = len(backend.audit(target))
open(sys.argv[1], "a").write("scribble")
drifts = len(backend.audit(target))
repaired = backend.apply(diff(EMPTY, target)).operations
removed = backend.teardown().operations
print(json.dumps([first > 0, again, clean, drifts > 0, repaired > 0, removed > 0]))
"""


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has installed the plugin next to polyplane."""
    site = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--target", site, PLUGIN], check=True, timeout=120)
    return os.environ | {"PYTHONPATH": str(site)}


def run(environment: dict[str, str], *command: str | Path) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_is_driven_through_the_facade(outside: dict[str, str], tmp_path: Path) -> None:
    assert json.loads(run(outside, sys.executable, "-c", DRIVE, tmp_path / "program")) == [True, 0, 0, True, True, True]
    assert list(tmp_path.iterdir()) == []


def test_is_listed(outside: dict[str, str]) -> None:
    assert "file" in run(outside, Path(sys.executable).with_name("polyplane"), "backends")


def test_how_to_quotes_the_source() -> None:
    blocks = HOW_TO.read_text().split("```python\n")[1:]
    quoted = [block.partition("```")[0] for block in blocks]
    assert quoted
    assert [quote for quote in quoted if quote not in SOURCE.read_text()] == []


def test_imports_only_what_a_backend_may() -> None:
    imported = {line.split()[1] for line in SOURCE.read_text().splitlines() if line.startswith("from polyplane")}
    assert {module for module in imported if not module.startswith(("polyplane.ir.", "polyplane.hookspecs", "polyplane.errors"))} == set()
