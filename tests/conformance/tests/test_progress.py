"""What several processes write down about their progress is read as the progress of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polyplane_conformance.progress import Diaries, Diary


class Heard:
    def __init__(self) -> None:
        self.totals: list[int] = []
        self.told: list[list[tuple[str, str]]] = []

    def expect(self, total: int) -> None:
        self.totals.append(total)

    def tell(self, entries: Sequence[tuple[str, str]]) -> None:
        self.told.append(list(entries))


def test_diaries_add_up(tmp_path: Path) -> None:
    one, two = tmp_path / "1.diary", tmp_path / "2.diary"
    heard = Heard()
    diaries = Diaries([one, two], heard)
    diaries.look()
    Diary(one).expect(3)
    Diary(one).tell([("model - ä", "passed")])
    diaries.look()
    assert heard.totals == [], "the other has not said how many tests it has"
    Diary(two).expect(4)
    with two.open("a", encoding="utf-8") as file:
        file.write('[["model - b", ')
    diaries.look()
    assert heard.totals == [7]
    assert heard.told == [[("model - ä", "passed")]]
    with two.open("a", encoding="utf-8") as file:
        file.write('"failed"]]\n')
    Diary(one).tell([])
    diaries.look()
    assert sorted(heard.told) == [[], [("model - b", "failed")], [("model - ä", "passed")]]
