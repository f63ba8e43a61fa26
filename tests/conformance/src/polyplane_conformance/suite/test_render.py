"""Render tier: golden files."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path

import pytest

from polyplane.plugins import load_backend
from polyplane_conformance.plugin import Backend
from polyplane_conformance.render import START, golden_file, golden_folder, render_scenario, without_start
from polyplane_conformance.rig import BARE
from polyplane_conformance.scenario import Scenario

pytestmark = pytest.mark.tier("render")


def _folder(backend: Backend, pytestconfig: pytest.Config) -> Path:
    found = golden_folder(backend.name, pytestconfig.getoption("--polyplane-golden"), pytestconfig.rootpath)
    if found is None:
        pytest.skip(f"{backend} keeps no golden files; make the folder tests/golden/conformance beside its pyproject.toml")
    return found


def test_golden(backend: Backend, scenario: Scenario, pytestconfig: pytest.Config) -> None:
    """The backend's native text is what its golden file says, and the same every time."""
    folder = _folder(backend, pytestconfig)
    text = render_scenario(scenario, load_backend(backend.name, backend.options))
    if (folder / START).exists():
        text = without_start(text, _start(backend))
    _compare(golden_file(folder, scenario), text, update=pytestconfig.getoption("--polyplane-update-golden"))


def test_golden_start(backend: Backend, pytestconfig: pytest.Config) -> None:
    """The same of the cluster that most scenarios begin with, where its text is kept apart."""
    folder = _folder(backend, pytestconfig)
    # without a file of its own (an empty one that is updated) each scenario's file begins with it, and was compared there
    if (folder / START).exists():
        _compare(folder / START, _start(backend), update=pytestconfig.getoption("--polyplane-update-golden"))


def _start(backend: Backend) -> str:
    return _rendered_start(backend.name, tuple(sorted(backend.options.items())))


@lru_cache(maxsize=8)
def _rendered_start(name: str, options: tuple[tuple[str, object], ...]) -> str:
    return render_scenario(BARE, load_backend(name, dict(options)))


def _compare(path: Path, text: str, *, update: bool) -> None:
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    if not path.exists():
        pytest.fail(f"{path} is missing; write it with --polyplane-update-golden and read what it says", pytrace=False)
    golden = path.read_text(encoding="utf-8")
    if text != golden:
        lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), str(path), "rendered now", lineterm="", n=2)
        pytest.fail("\n".join(list(lines)[:80]), pytrace=False)
