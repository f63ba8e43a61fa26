"""An outsider's way to a backend of one's own, exactly as the how-to tells it: our wheels in an environment of its own, nothing else.

The repository is on nobody's path: it is read for the wheels and for what the outsider writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polyplane_conformance.scaffold import ScaffoldError, scaffold, template

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"
HOW_TO = ROOT / "docs" / "how-to" / "write-a-backend.md"
#: What the author of the plugin wrote; all else is as scaffolded.
WRITTEN = {"src/polyplane_file/native.py", "src/polyplane_file/conformance.toml"}

#: The profiles that everybody must have.
CORE = ("AdminNetworkPolicy/core", "ClusterNetworkPolicy/core", "NetworkPolicy/core", "Operation/core")

DRIVE = """
import json, sys
from polyplane.ir.program import EMPTY, Options, DenyAction, Program
from polyplane.plugins import load_backend
from polyplane.reconcile.diff import diff

def load():
    return load_backend("file", {"place": sys.argv[1]})

target = Program(revision=1, options=Options(deny_action=DenyAction.REJECT))
first = load().apply(diff(EMPTY, target)).operations
again = load().apply(diff(EMPTY, target)).operations
clean = len(load().audit(target))
open(sys.argv[1], "a").write("scribble")
drifts = len(load().audit(target))
repaired = load().apply(diff(EMPTY, target)).operations
removed = load().teardown().operations
print(json.dumps([first > 0, again, clean, drifts > 0, repaired > 0, removed > 0]))
"""


@dataclass(frozen=True, slots=True)
class Outsider:
    """Somebody's machine: a virtual environment and a folder to work in."""

    bin: Path
    home: Path

    def run(
        self, command: str, *arguments: str | Path, where: Path | None = None, patience: float = 300
    ) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR") or name.startswith(("SSL_", "UV_"))}
        environment = kept | {"PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"}
        argv = [self.bin / command, *arguments]
        return subprocess.run(argv, cwd=where or self.home, env=environment, capture_output=True, text=True, check=False, timeout=patience)


def uv(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def outsider(tmp_path_factory: pytest.TempPathFactory) -> Outsider:
    """Has installed polyplane, the suite and polyplane-file, from wheels."""
    home = tmp_path_factory.mktemp("outsider")
    wheels, venv = home / "wheels", home / "venv"
    for distribution in ("core", "tests/conformance", "tests/plugin"):
        uv("build", "--quiet", "--wheel", "--out-dir", wheels, ROOT / distribution)
    uv("venv", "--quiet", "--python", shutil.which("python3") or "python3", venv)
    uv("pip", "install", "--quiet", "--python", venv / "bin" / "python", *wheels.glob("*.whl"))
    made = Outsider(bin=venv / "bin", home=home)
    said = made.run("python", "-c", "import polyplane, polyplane_conformance as c; print(polyplane.__file__, c.__file__)").stdout
    assert str(ROOT) not in said
    return made


def profiles(report: Path, backend: str) -> dict[str, str]:
    data: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    (found,) = (one for one in data["implementations"] if one["name"] == backend)
    return {profile["name"]: profile["result"] for profile in found["profiles"]}


def results(report: Path) -> set[tuple[str, str, str]]:
    data: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return {(entry["tier"], entry["name"], entry["status"]) for entry in data["results"] if entry["status"] != "skipped"}


def test_scaffold_fill_in_and_pass(outsider: Outsider) -> None:
    """Red at once, green when its two functions are filled in; then the three ways in find the same."""
    assert outsider.run("polyplane-conformance", "new-backend", "acme").returncode == 0
    home = outsider.home / "polyplane-acme"
    uv("pip", "install", "--quiet", "--no-deps", "--python", outsider.bin / "python", "--editable", home)
    assert "acme" in outsider.run("polyplane", "backends").stdout

    red = outsider.run("pytest", "-q", "-x", "--polyplane-tier", "render", where=home)
    assert red.returncode == 1, red.stdout + red.stderr
    assert "statements: fill this in first" in red.stdout

    native = home / "src" / "polyplane_acme" / "native.py"
    native.write_text((PLUGIN / "src" / "polyplane_file" / "native.py").read_text(encoding="utf-8"), encoding="utf-8")
    stated = native.with_name("conformance.toml")
    stated.write_text(stated.read_text(encoding="utf-8").replace("packets = true", "packets = false"), encoding="utf-8")

    written = outsider.run("pytest", "-q", "--polyplane-tier", "render", "--polyplane-update-golden", where=home, patience=600)
    assert written.returncode == 0, written.stdout + written.stderr
    assert list((home / "tests" / "golden").rglob("*.txt"))
    # all of what is about the backend; the model tier is about the compiler
    tier = ("--polyplane-tier", "render", "--polyplane-report", home / "whole.json")
    whole = outsider.run("pytest", "-q", "-p", "no:cacheprovider", *tier, where=home, patience=600)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    core = profiles(home / "whole.json", "acme")
    assert {name: result for name, result in core.items() if name.endswith("/core")} == dict.fromkeys(CORE, "success")

    some = ("--polyplane-scenario", "union/*")

    reports = {way: home / f"{way}.json" for way in ("star", "command", "pyargs")}
    plain = ("-q", "-p", "no:cacheprovider", "--polyplane-report")
    green = outsider.run("pytest", *plain, reports["star"], *some, where=home)
    assert green.returncode == 0, green.stdout + green.stderr
    options = ("--backend", "acme", "--option", "place=polyplane-trial", "--scenario", "union/*")
    green = outsider.run("polyplane-conformance", "run", *options, "--report", reports["command"], where=home)
    assert green.returncode == 0, green.stdout + green.stderr
    green = outsider.run("pytest", *plain, reports["pyargs"], *some, "--pyargs", "polyplane_conformance.suite", where=home)
    assert green.returncode == 0, green.stdout + green.stderr
    found = {way: results(report) for way, report in reports.items()}
    assert {status for _, _, status in found["star"]} == {"passed"}
    assert {tier for tier, _, _ in found["star"]} == {"model", "render"}
    assert found["star"] == found["command"] == found["pyargs"]
    assert not (home / "polyplane-trial").exists()


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.needs("nft")
def test_with_packets(outsider: Outsider) -> None:
    """The two functions of a dataplane that packets pass through are enough for the core of every profile, behaviours included."""
    home = outsider.home / "polyplane-tables"
    assert outsider.run("polyplane-conformance", "new-backend", "tables").returncode == 0
    uv("pip", "install", "--quiet", "--no-deps", "--python", outsider.bin / "python", "--editable", home)
    native = home / "src" / "polyplane_tables" / "native.py"
    native.write_text((Path(__file__).parent / "outsider" / "native.py").read_text(encoding="utf-8"), encoding="utf-8")
    with native.with_name("conformance.toml").open("a", encoding="utf-8") as stated:
        stated.write('\n[[damage]]\nname = "our table is gone"\ncommand = ["nft", "delete", "table", "inet", "polyplane"]\n')
    run = ("run", "--backend", "tables", "--tier", "netns", "--jobs", "2", "--report", "packets.json")
    done = outsider.run("polyplane-conformance", *run, where=home, patience=900)
    assert done.returncode == 0, done.stdout + done.stderr
    core = profiles(home / "packets.json", "tables")
    assert {name: result for name, result in core.items() if name.endswith("/core")} == dict.fromkeys(CORE, "success")


def test_a_wrong_function_is_found(outsider: Outsider) -> None:
    """A dataplane that loses a statement, or keeps one on teardown, is red without any packet."""
    home = outsider.home / "polyplane-slip"
    assert outsider.run("polyplane-conformance", "new-backend", "slip").returncode == 0
    uv("pip", "install", "--quiet", "--no-deps", "--python", outsider.bin / "python", "--editable", home)
    package = home / "src" / "polyplane_slip"
    right = (PLUGIN / "src" / "polyplane_file" / "native.py").read_text(encoding="utf-8")
    (package / "conformance.toml").write_text("packets = false\n", encoding="utf-8")
    only = ("-q", "--polyplane-tier", "render", "--polyplane-scenario", "union/one-of-two-removed", "-k", "state")
    for old, new, says in (
        ('"\\n".join(wanted)', '"\\n".join(wanted[1:])', "drift right after an apply"),
        ("path.unlink(missing_ok=True)", "pass", "left something behind"),
    ):
        assert right.count(old) == 1
        (package / "native.py").write_text(right.replace(old, new), encoding="utf-8")
        done = outsider.run("pytest", *only, where=home)
        assert done.returncode == 1, done.stdout + done.stderr
        assert says in done.stdout


def test_the_plugin_is_driven_through_the_facade(outsider: Outsider, tmp_path: Path) -> None:
    done = outsider.run("python", "-c", DRIVE, tmp_path / "program")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, 0, 0, True, True, True]
    assert list(tmp_path.iterdir()) == []


def test_the_plugin_is_what_new_backend_writes() -> None:
    for path, text in template("file").items():
        if path not in WRITTEN:
            assert (PLUGIN / path).read_text(encoding="utf-8") == text, path


def test_how_to_quotes_the_plugin() -> None:
    package = PLUGIN / "src" / "polyplane_file"
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py")))
    quoted = [block.partition("```")[0] for block in HOW_TO.read_text(encoding="utf-8").split("```python\n")[1:]]
    assert quoted
    assert [quote for quote in quoted if quote not in source] == []


def test_the_plugin_imports_only_what_a_backend_may() -> None:
    allowed = ("polyplane.ir.", "polyplane.hookspecs", "polyplane.errors", "polyplane.backend_kit", "polyplane_file.")
    text = "".join(path.read_text(encoding="utf-8") for path in (PLUGIN / "src").rglob("*.py"))
    imported = re.findall(r"^from (polyplane\S*)", text, re.MULTILINE)
    assert imported
    assert [module for module in imported if not module.startswith(allowed)] == []


def test_scaffolding_refuses_bad_names_and_full_folders(tmp_path: Path) -> None:
    for name in ("", "Acme", "a b", "a--b", "-a", "../a"):
        with pytest.raises(ScaffoldError, match="cannot name a backend"):
            scaffold(name, tmp_path / "new")
    (tmp_path / "mine").write_text("")
    with pytest.raises(ScaffoldError, match="already there"):
        scaffold("acme", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
