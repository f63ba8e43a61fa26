"""Render tier: golden files."""

from __future__ import annotations

import difflib

import pytest

from polyplane.plugins import load_backend
from polyplane_conformance.plugin import Backend
from polyplane_conformance.render import golden_file, golden_folder, render_scenario
from polyplane_conformance.scenario import Scenario

pytestmark = pytest.mark.tier("render")


def test_golden(backend: Backend, scenario: Scenario, pytestconfig: pytest.Config) -> None:
    """The backend's native text is what its golden file says, and the same every time."""
    folder = golden_folder(backend.name, pytestconfig.getoption("--polyplane-golden"), pytestconfig.rootpath)
    if folder is None:
        pytest.skip(f"{backend} keeps no golden files; make the folder tests/golden/conformance beside its pyproject.toml")
    text = render_scenario(scenario, load_backend(backend.name, backend.options))
    path = golden_file(folder, scenario)
    if pytestconfig.getoption("--polyplane-update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    if not path.exists():
        pytest.fail(f"{path} is missing; write it with --polyplane-update-golden and read what it says", pytrace=False)
    golden = path.read_text(encoding="utf-8")
    if text != golden:
        lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), str(path), "rendered now", lineterm="", n=2)
        pytest.fail("\n".join(list(lines)[:80]), pytrace=False)
