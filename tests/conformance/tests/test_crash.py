from __future__ import annotations

from pathlib import Path

import pytest

from polyplane_conformance.crash import count_calls, die_at, strides


def two_steps(folder: Path) -> None:
    (folder / "one").write_text("", encoding="utf-8")
    (folder / "two").write_text("", encoding="utf-8")


def test_every_state_between_two_steps_is_seen(tmp_path: Path) -> None:
    calls = count_calls(lambda: two_steps(tmp_path))
    seen = []
    for call in range(1, calls + 1):
        for path in tmp_path.iterdir():
            path.unlink()
        assert die_at(lambda: two_steps(tmp_path), call)
        seen.append(tuple(sorted(path.name for path in tmp_path.iterdir())))
    assert list(dict.fromkeys(seen)) == [(), ("one",), ("one", "two")]
    assert not die_at(lambda: two_steps(tmp_path), calls + 1)


def test_work_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="fails"):
        count_calls(lambda: two_steps(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="fails"):
        die_at(lambda: two_steps(tmp_path / "nowhere"), 10_000)


def test_strides_cover_the_whole() -> None:
    assert list(strides(100, 4)) == [25, 50, 75, 100]
    assert list(strides(3, 12)) == [1, 2, 3]
