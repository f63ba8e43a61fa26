"""The section profile counts what py-spy has seen, and runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyplane_bench import page_profile, profiles
from polyplane_bench.figures import Result
from polyplane_bench.settings import Settings


def test_samples_count_for_our_innermost_function() -> None:
    frames = [
        {"name": "main", "file": "/home/polyplane/tests/benchmarks/polyplane_bench/core_case.py"},
        {"name": "Store.apply", "file": "/home/polyplane/core/src/polyplane/cluster/store.py"},
        {"name": "0x7f00", "file": "/usr/lib/libc.so.6"},
        {"name": "<module>", "file": None},
        {"name": "Prober._read", "file": "/home/polyplane/tests/conformance/src/polyplane_conformance/probe/client.py"},
    ]
    threads = [{"samples": [[3, 0, 1, 2], [3, 0, 1], [0, 1, 1]]}, {"samples": [[0], [2]]}, {"samples": [[4], [4, 2]]}]
    recorded = {"shared": {"frames": frames}, "profiles": threads}
    own, within, total = profiles.shares(recorded)
    store, main = "Store.apply (polyplane/cluster/store.py)", "main (polyplane_bench/core_case.py)"
    assert own == {store: 3, main: 1}
    assert within == {store: 3, main: 4}
    assert total == 4


@pytest.mark.netns
@pytest.mark.needs("nft")
@pytest.mark.skipif(bool(profiles.missing()), reason=profiles.missing())
def test_the_section_draws_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [
        ("core, events", {"pods": 1000, "policies": 100, "rounds": 10}),
        ("changes", {"backend": "nftables", "policies": 500, "seconds": 0.5}),
    ]
    monkeypatch.setattr(profiles, "cases", lambda _: small)
    figures = profiles.measure(Settings(results=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        f"profile-{what}{suffix}" for what in ("core-events", "nftables-changes") for suffix in (".svg", ".speedscope.json")
    }
    result = Result(section="profile", size="quick", machine={}, date="", seconds=0, figures=figures)
    core, backend = "\n".join(page_profile.lines(result, ".")).split("### ")[1:]
    assert "(polyplane/" in core
    assert "(polyplane_nftables/" in backend
