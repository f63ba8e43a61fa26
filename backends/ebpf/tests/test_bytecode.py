"""What ships is what the source says."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from polyplane.errors import BackendUnavailable
from polyplane_ebpf import bytecode, maps


def test_what_ships_was_made_from_this_source(tmp_path: Path) -> None:
    shipped = bytecode.obtain("prebuilt", tmp_path)
    assert shipped.source == bytecode.source_digest(), "run python -m polyplane_ebpf.bytecode"
    assert set(shipped.functions) == set(bytecode.FUNCTIONS)


@pytest.mark.needs("bcc")
def test_compiling_here_gives_it_too_and_is_remembered(tmp_path: Path) -> None:
    made = bytecode.obtain("compile", tmp_path)
    shipped = bytecode.obtain("prebuilt", tmp_path)
    if made.compiler == shipped.compiler:
        assert made.functions == shipped.functions
    (cached,) = tmp_path.iterdir()
    before = cached.stat().st_mtime_ns
    assert bytecode.obtain("compile", tmp_path) == made
    assert cached.stat().st_mtime_ns == before


@pytest.mark.needs("bcc")
def test_a_broken_cache_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f"program-{bytecode.source_digest()[:16]}.json").write_text('{"source": 1}')
    assert bytecode.obtain("compile", tmp_path).source == bytecode.source_digest()


def complaint() -> str:
    with pytest.raises(BackendUnavailable) as refused:
        bytecode.build()
    return str(refused.value)


@pytest.mark.needs("bcc")
def test_a_source_that_does_not_compile_is_told_readably(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "source_text", lambda: "int polyplane_filter(void *x) { return nonsense; }")
    assert "nonsense" in complaint()


@pytest.mark.needs("bcc")
def test_sizes_of_maps_are_those_that_the_program_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    other = maps.definitions() | {"VALUE_POLICY": maps.SPECS["policy"].value + 1}
    monkeypatch.setattr(maps, "definitions", lambda: other)
    assert "sizes of POLICY" in complaint()


def test_the_sources_are_part_of_the_package() -> None:
    assert (files("polyplane_ebpf") / "program" / "60_netfilter.c").is_file()
