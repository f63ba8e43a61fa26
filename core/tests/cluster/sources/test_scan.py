"""Which files of a directory count, what a look believes, and that unchanged files are not read again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from polyplane.cluster.model import InSync, PutObject, RemoveObject, SourceEvent, SourceProblem
from polyplane.cluster.sources.documents import MAX_BYTES
from polyplane.cluster.sources.inventory import Inventory
from polyplane.cluster.sources.manifests import ManifestSource, read_directory
from polyplane.cluster.sources.scan import SETTLE_SECONDS, WRITER_SECONDS, Scanner, is_manifest
from polyplane.errors import ConfigError


def node(name: str) -> str:
    return f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"


def write(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("---\n".join(node(name) for name in names))


def names(events: Iterable[SourceEvent]) -> list[str]:
    return [event.key.name for event in events if isinstance(event, PutObject)]


def problems(events: Iterable[SourceEvent]) -> dict[str, str | None]:
    return {event.where: event.problem for event in events if isinstance(event, SourceProblem)}


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.json", "A.YAML", "a.b.yaml", "4913.yaml"])
def test_manifests(name: str) -> None:
    assert is_manifest(name)


@pytest.mark.parametrize(
    "name",
    [
        ".a.yaml",
        ".a.yaml.swp",
        ".a.yaml.swx",
        ".#a.yaml",
        "a.yaml~",
        "#a.yaml#",
        "#a.yaml",
        "~a.yaml",
        "4913",
        "a.yaml.bak",
        "a.yaml.orig",
        "sedX7aB2c",
        "a.txt",
        "yaml",
        "a.yaml.tmp",
    ],
)
def test_other_files(name: str) -> None:
    assert not is_manifest(name)


def test_reads_nested_directories_once(tmp_path: Path) -> None:
    write(tmp_path / "b.yaml", "b", "c")
    write(tmp_path / "a" / "x" / "a.yml", "a")
    (tmp_path / "d.json").write_text('{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "d"}}')
    write(tmp_path / ".hidden" / "h.yaml", "h")
    write(tmp_path / "b.yaml~", "old")
    (tmp_path / "README.md").write_text("{{{")
    (tmp_path / "empty.yaml").write_text("")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "nowhere.yaml").symlink_to("no-such-file")
    events = read_directory(tmp_path)
    assert names(events) == ["a", "b", "c", "d"]
    assert not problems(events)
    assert [type(event) for event in events].index(InSync) == len(events) - 1
    assert read_directory(str(tmp_path)) == events


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; create it"):
        read_directory(tmp_path / "x")
    write(tmp_path / "a.yaml", "a")
    with pytest.raises(ConfigError, match=r"is not a directory; name"):
        read_directory(tmp_path / "a.yaml")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.yaml", "a")
    root = tmp_path / "root"
    write(root / "b" / "b.yaml", "b")
    (root / "b" / "again").symlink_to("..")
    (root / "c").symlink_to("../elsewhere")
    events = read_directory(root)
    assert names(events) == ["b", "a"]
    assert not problems(events), "nothing is found a second time on the way around"


def test_a_mounted_config_map(tmp_path: Path) -> None:
    write(tmp_path / "..2026_01" / "a.yaml", "a")
    write(tmp_path / "..2026_02" / "a.yaml", "b")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    inventory = Inventory()
    scanner = Scanner(tmp_path, inventory)
    scanner.scan(0.0)
    assert names(inventory.events()) == ["a"]
    # A kubelet swaps the link atomically; the visible name stays what it is.
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert scanner.scan(0.0)
    assert names(inventory.events()) == ["b"]


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    events = read_directory(tmp_path)
    assert problems(events) == {"a.yaml": f"is {MAX_BYTES + 1} bytes long, the limit is {MAX_BYTES}; split it into several files"}


class Look:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.inventory = Inventory()
        self.scanner = Scanner(root, self.inventory)

    def at(self, now: float | None) -> tuple[bool, list[SourceEvent]]:
        believed = self.scanner.scan(now)
        return believed, self.inventory.events()


@pytest.fixture
def look(tmp_path: Path) -> Look:
    write(tmp_path / "a.yaml", "a")
    write(tmp_path / "b.yaml", "b")
    look = Look(tmp_path)
    assert names(look.at(0.0)[1]) == ["a", "b"]
    return look


@pytest.mark.parametrize("accident", ["removed", "emptied"])
def test_what_disappears_is_believed_a_moment_later(look: Look, accident: str) -> None:
    path = look.root / "a.yaml"
    if accident == "removed":
        path.unlink()
    else:
        path.write_text("")
    assert look.at(10.0) == (False, [])
    assert look.at(10.0 + SETTLE_SECONDS / 2) == (False, [])
    believed, events = look.at(10.0 + SETTLE_SECONDS)
    assert believed
    assert [type(event) for event in events] == [RemoveObject]
    write(path, "a")
    assert names(look.at(20.0)[1]) == ["a"]


def test_what_disappears_and_comes_back_was_never_gone(look: Look) -> None:
    path = look.root / "a.yaml"
    for start in (10.0, 20.0):
        path.unlink()
        assert look.at(start) == (False, [])
        path.write_text("")
        assert look.at(start + SETTLE_SECONDS / 2) == (False, [])
        write(path, "a")
        assert look.at(start + SETTLE_SECONDS) == (True, [])


@pytest.mark.parametrize("written", ["", node("c") + "---\n"])
def test_a_file_that_is_being_written_is_believed_once_it_is_closed(look: Look, written: str) -> None:
    """As long as a shell needs for ``slow-command > a.yaml``, and however little of it has been written."""
    with (look.root / "a.yaml").open("w") as file:
        file.write(written)
        file.flush()
        assert look.at(10.0) == (False, [])
        assert look.at(10.0 + WRITER_SECONDS - 0.1) == (False, [])
        file.write(node("a"))
    believed, events = look.at(10.0 + WRITER_SECONDS - 0.1)
    assert believed
    assert [type(event) for event in events] == [PutObject] * bool(written) * 2


def test_a_file_that_nobody_ever_closes_is_believed_in_the_end(look: Look) -> None:
    with (look.root / "a.yaml").open("w") as file:
        assert look.at(10.0) == (False, [])
        believed, events = look.at(10.0 + WRITER_SECONDS)
        assert believed
        assert [type(event) for event in events] == [RemoveObject]
        file.write(node("a"))


def test_a_file_that_is_emptied_again_and_again_is_waited_for_again(look: Look) -> None:
    path, written = look.root / "a.yaml", (look.root / "a.yaml").read_text()
    for at in (10.0, 10.0 + WRITER_SECONDS - 0.1, 10.0 + 2 * WRITER_SECONDS - 0.2):
        with path.open("w") as file:
            assert look.at(at) == (False, [])
            file.write(written)
        time.sleep(0.05)  # a tick of the clock that files' times are taken from
    assert look.at(10.0 + 2 * WRITER_SECONDS) == (True, [])


def test_a_file_is_written_while_leases_are_asked_for(look: Look) -> None:
    """A writer is neither refused nor held up, and its coming ends nobody."""
    path, done = look.root / "a.yaml", threading.Event()

    def write_on() -> None:
        for _ in range(2000):
            write(path, "a", "c")
        done.set()

    writer = threading.Thread(target=write_on)
    writer.start()
    while not done.is_set():
        look.at(10.0)
    writer.join()
    assert look.at(10.0 + WRITER_SECONDS)[0]


def test_each_file_has_its_own_moment(look: Look) -> None:
    (look.root / "a.yaml").unlink()
    assert look.at(10.0) == (False, [])
    (look.root / "b.yaml").unlink()
    believed, events = look.at(10.0 + SETTLE_SECONDS)
    assert not believed
    assert [event.key.name for event in events if isinstance(event, RemoveObject)] == ["a"]


def test_a_renamed_file_moves_its_objects(look: Look) -> None:
    (look.root / "a.yaml").rename(look.root / "z.yaml")
    believed, events = look.at(10.0)
    assert not believed
    assert [type(event) for event in events] == [SourceProblem], "for the moment both names count"
    believed, events = look.at(11.0)
    assert believed
    assert names(events) == ["a"]
    assert not any(isinstance(event, RemoveObject) for event in events)


def test_a_directory_that_goes_keeps_everything(look: Look) -> None:
    moved = look.root.with_name("moved")
    look.root.rename(moved)
    believed, events = look.at(10.0)
    assert believed
    assert list(problems(events)) == [str(look.root)]
    assert look.at(20.0) == (True, [])
    moved.rename(look.root)
    assert problems(look.at(30.0)[1]) == {str(look.root): None}


def test_unchanged_files_are_not_read_again(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    old = 1_000_000_000
    read: list[str] = []
    put = look.inventory.put

    def note(path: str, content: bytes) -> None:
        read.append(path)
        put(path, content)

    monkeypatch.setattr(look.inventory, "put", note)
    look.at(1.0)
    assert read == ["a.yaml", "b.yaml"], "files changed a moment ago are not trusted to be unchanged"
    # The time of the last change of the inode cannot be set back, so time itself moves on.
    now = Path(look.root / "a.yaml").stat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: now + old)
    look.at(2.0)
    read.clear()
    look.at(3.0)
    assert read == []
    write(look.root / "a.yaml", "a", "c")
    assert names(look.at(4.0)[1]) == ["c"]
    assert read == ["a.yaml"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "'directory' is missing"),
        ({"directory": 5}, "'directory' is missing or no path"),
        ({"directory": ""}, "'directory' is missing"),
        ({"directory": "/no/such/place"}, "does not exist; create it"),
        ({"directory": "/", "dir": 1}, "unknown option 'dir'; known are directory and debounce_ms"),
        ({"directory": "/", "debounce_ms": 0}, "between 1 and 10000"),
        ({"directory": "/", "debounce_ms": True}, "between 1 and 10000"),
        ({"directory": "/", "debounce_ms": "50"}, "between 1 and 10000"),
    ],
)
def test_bad_options_are_told(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ManifestSource(options)
