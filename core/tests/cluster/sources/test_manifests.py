"""The manifest source on a real directory with real inotify: what a person or a script does to files, and what comes of it."""

from __future__ import annotations

import errno
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import watchfiles

from polyplane.cluster.dialects.networkpolicy import NETWORK_POLICY
from polyplane.cluster.model import InSync, SourceEvent
from polyplane.cluster.sources import scan
from polyplane.cluster.sources.manifests import ManifestSource
from polyplane.cluster.store import Store
from polyplane.errors import ConfigError
from polyplane.ir.program import Direction

PATIENCE = 60.0


def policy(name: str, types: str = "Ingress") -> str:
    return f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{policyTypes: [{types}]}}\n"


class Follower:
    """Runs a source into a store, as the agent does, and notes every removal."""

    def __init__(self, directory: Path) -> None:
        self.source = ManifestSource({"directory": str(directory), "debounce_ms": 10})
        self.queue: queue.Queue[SourceEvent] = queue.Queue()
        self.store = Store([NETWORK_POLICY])
        self.removed: list[str] = []
        self.events = 0
        assert self.source.polyplane_source_start(self.queue.put)
        self.until(lambda: self.store.in_sync)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            try:
                event = self.queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {PATIENCE} s: {self.policies}, {[str(problem) for problem in self.problems]}") from None
            self.events += 1
            self.removed += [change.old.key.name for change in self.store.apply(event) if change.new is None]

    @property
    def policies(self) -> dict[str, set[str]]:
        return {key.name: {direction.value for direction in policy.isolates} for key, policy in self.store.policies.items()}

    @property
    def problems(self) -> list[str]:
        return sorted(str(problem) for problem in self.store.problems.values())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def follower(directory: Path) -> Iterator[Follower]:
    (directory / "web.yaml").write_text(policy("web"))
    follower = Follower(directory)
    assert follower.policies == {"web": {"ingress"}}
    yield follower
    follower.source.polyplane_source_stop()


def test_in_sync_comes_after_everything_and_once(directory: Path) -> None:
    for number in range(20):
        (directory / f"{number}.yaml").write_text(policy(f"p{number}"))
    follower = Follower(directory)
    assert len(follower.store.policies) == 20
    follower.source.polyplane_source_stop()
    assert not any(isinstance(event, InSync) for event in follower.queue.queue)


def test_an_empty_directory_is_in_sync_at_once(directory: Path) -> None:
    follower = Follower(directory)
    (directory / "sub").mkdir()
    (directory / "sub" / "web.yaml").write_text(policy("web"))
    follower.until(lambda: "web" in follower.policies)
    follower.source.polyplane_source_stop()


def test_files_come_change_and_go(directory: Path, follower: Follower) -> None:
    (directory / "db.yaml").write_text(policy("db"))
    follower.until(lambda: "db" in follower.policies)
    (directory / "db.yaml").write_text(policy("db", "Egress"))
    follower.until(lambda: follower.policies["db"] == {"egress"})
    (directory / "db.yaml").unlink()
    follower.until(lambda: "db" not in follower.policies)
    assert follower.removed == ["db"]
    assert not follower.problems


def test_an_atomic_replacement_changes_without_a_gap(directory: Path, follower: Follower) -> None:
    for types in ("Egress", "Ingress", "Egress"):
        (directory / ".web.yaml.tmp").write_text(policy("web", types))
        (directory / ".web.yaml.tmp").rename(directory / "web.yaml")
        follower.until(lambda types=types: follower.policies["web"] == {Direction(types.lower()).value})
    assert not follower.removed


def test_what_editors_do_leaves_no_gap(directory: Path, follower: Follower) -> None:
    # vi: try whether files can be made here, move the old one aside, write the new one, drop the backup
    (directory / ".web.yaml.swp").write_bytes(b"b0VIM\x00\xff")
    (directory / "4913").write_text("")
    (directory / "4913").unlink()
    (directory / "web.yaml").rename(directory / "web.yaml~")
    (directory / "web.yaml").write_text(policy("web", "Egress"))
    (directory / "web.yaml~").unlink()
    follower.until(lambda: follower.policies["web"] == {"egress"})
    # Emacs: a lock file that is a link to nothing, an autosave file
    (directory / ".#web.yaml").symlink_to("user@host.1234")
    (directory / "#web.yaml#").write_text("not: [")
    (directory / "web.yaml").write_text(policy("web", "Ingress"))
    follower.until(lambda: follower.policies["web"] == {"ingress"})
    assert not follower.removed
    assert not follower.problems


def test_breaking_and_repairing_in_a_shell_loop_never_opens_anything(
    directory: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the shell may need longer for its next command than a file may be missing.
    monkeypatch.setattr(scan, "SETTLE_SECONDS", 10.0)
    script = f"""
    for i in 1 2 3 4 5 6 7 8; do
        printf 'spec: [' > web.yaml; sleep 0.01
        : > web.yaml; sleep 0.01
        rm web.yaml; sleep 0.01
        cat > web.yaml <<'END'
{policy("web", "NoSuchType")}
END
        sleep 0.01
    done
    cat > web.yaml <<'END'
{policy("web", "Egress")}
END
    """
    subprocess.run(["sh", "-c", script], cwd=directory, check=True, timeout=PATIENCE)
    follower.until(lambda: follower.policies.get("web") == {"egress"} and not follower.problems)
    assert not follower.removed


def test_a_typo_keeps_the_last_readable_version_and_tells(directory: Path, follower: Follower) -> None:
    (directory / "web.yaml").write_text(policy("web") + "  bad indentation: [\n")
    follower.until(lambda: len(follower.problems) == 2)
    assert follower.policies == {"web": {"ingress"}}
    assert follower.problems[0].startswith("web.yaml, document 1, line 5: is not YAML: ")
    assert follower.problems[0].endswith("(the last valid version stays in force)")
    assert "NetworkPolicy shop/web" in follower.problems[1]
    (directory / "other.yaml").write_text(policy("other"))
    follower.until(lambda: "other" in follower.policies)
    (directory / "web.yaml").write_text(policy("web", "Egress"))
    follower.until(lambda: not follower.problems)
    assert follower.policies == {"web": {"egress"}, "other": {"ingress"}}


def test_a_config_map_is_swapped_as_a_whole(directory: Path) -> None:
    for version, types in (("..v1", "Ingress"), ("..v2", "Egress")):
        (directory / version).mkdir()
        (directory / version / "web.yaml").write_text(policy("web", types))
    (directory / "..data").symlink_to("..v1")
    (directory / "web.yaml").symlink_to("..data/web.yaml")
    follower = Follower(directory)
    assert follower.policies == {"web": {"ingress"}}
    (directory / "..data_tmp").symlink_to("..v2")
    (directory / "..data_tmp").rename(directory / "..data")
    shutil.rmtree(directory / "..v1")
    follower.until(lambda: follower.policies == {"web": {"egress"}})
    follower.source.polyplane_source_stop()
    assert not follower.removed


def test_a_directory_that_goes_and_comes_back(directory: Path, follower: Follower) -> None:
    shutil.rmtree(directory)
    follower.until(lambda: any("is gone" in problem for problem in follower.problems))
    assert follower.policies == {"web": {"ingress"}}
    directory.mkdir()
    (directory / "web.yaml").write_text(policy("web", "Egress"))
    follower.until(lambda: follower.policies == {"web": {"egress"}} and not follower.problems)
    (directory / "db.yaml").write_text(policy("db"))
    follower.until(lambda: "db" in follower.policies)
    assert not follower.removed


def test_nothing_is_emitted_after_stop(directory: Path, follower: Follower) -> None:
    assert follower.source.polyplane_source_stop()
    assert follower.source.polyplane_source_stop(), "stopping twice is harmless"
    assert not any(thread.name == "polyplane-manifests" for thread in threading.enumerate())
    before = follower.queue.qsize()
    (directory / "db.yaml").write_text(policy("db"))
    assert follower.queue.qsize() == before


def test_a_directory_that_goes_before_the_start_is_told(directory: Path) -> None:
    source = ManifestSource({"directory": str(directory)})
    directory.rmdir()
    with pytest.raises(ConfigError, match="does not exist"):
        source.polyplane_source_start([].append)


def test_without_inotify_changes_are_still_noticed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit on watches belongs to the whole machine, so running into it is the one thing that is only acted here.
    watch = watchfiles.watch

    def out_of_watches(*_: object, **__: object) -> Iterator[None]:
        yield from ()
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", out_of_watches)
    monkeypatch.setattr("polyplane.cluster.sources.manifests._POLL", 0.05)
    follower = Follower(directory)
    follower.until(lambda: any("raise fs.inotify.max_user_watches" in problem for problem in follower.problems))
    (directory / "web.yaml").write_text(policy("web"))
    follower.until(lambda: "web" in follower.policies)
    monkeypatch.setattr(watchfiles, "watch", watch)
    follower.until(lambda: not follower.problems)
    follower.source.polyplane_source_stop()
