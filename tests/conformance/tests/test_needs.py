"""What is missing is told with what brings it; a test that lacks something is skipped for that, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyplane_conformance.needs import missing

ROOT = Path(__file__).parents[3]


def test_what_is_missing_is_told_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ipset").touch(0o755)
    assert missing("ipset") == ()
    assert missing("nft", "ipset", "nft", "tcpdump") == (
        "needs the command nft: apt-get install nftables",
        "needs the command tcpdump: apt-get install tcpdump",
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing("root") == ("needs root, for network namespaces or BPF programs: run it with sudo",)
    monkeypatch.setitem(sys.modules, "iptc", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk", raising=False)  # another test may have imported it
    assert missing("iptc")[0].startswith("needs the module iptc: pip install")
    assert missing("opentelemetry.sdk")[0].startswith("needs the module opentelemetry.sdk: pip install")


def test_a_thing_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody knows what brings ntf"):
        missing("nft", "ntf")


def test_a_test_is_skipped_for_what_it_lacks(tmp_path: Path) -> None:
    """Commands, options, and root for whatever sends packets; others run."""
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.needs('kubectl', '--some-option')\ndef test_one(): pass\n"
        "@pytest.mark.netns\ndef test_two(): pass\n"
        "def test_three(): pass\n"
    )
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text() + "\nimport os\nos.geteuid = lambda: 1000\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs\n")
    argv = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(argv, cwd=tmp_path, env={**os.environ, "PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert "test_some.py:2: only with --some-option; needs the command kubectl: https://" in done.stdout
    assert "test_some.py:4: needs root, for" in done.stdout
