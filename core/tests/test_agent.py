"""The agent around the loop: queue, threads, reloading, and the one-shot helpers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import structlog
from manifests import BROKEN_POLICY, POD, write_shop
from structlog.testing import capture_logs

from polyplane.addresses import local_addresses
from polyplane.agent import MAX_TAKEN, Agent, compile_directory
from polyplane.cluster.model import SourceProblem
from polyplane.config import Config, LogLevel
from polyplane.errors import ApplyError, BackendUnavailable, ConfigError, PluginNotFound
from polyplane.hookspecs import Applied, hookimpl
from polyplane.ir.cidr import Cidr
from polyplane.ir.features import Capabilities, Feature
from polyplane.ir.program import EMPTY, DenyAction, Program
from polyplane.ir.text import parse_program


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "manifests")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return tmp_path / "kernel"


def settings(shop: Path, kernel: Path, **more: object) -> Config:
    values: dict[str, object] = {
        "backend": "memory",
        "node": "n1",
        "backend_options": {"memory": {"file": str(kernel)}},
        "source_options": {"manifests": {"directory": str(shop)}},
        "detect_node_addresses": False,
        **more,
    }
    return Config(**values)  # type: ignore[arg-type]


def held(kernel: Path) -> Program:
    return parse_program(kernel.read_text()) if kernel.exists() else EMPTY


@pytest.fixture
def running(shop: Path, kernel: Path) -> Iterator[Agent]:
    """An agent in a thread, with everything in force."""
    current = {"config": settings(shop, kernel)}

    def reload() -> Config:
        if "error" in current:
            raise ConfigError("broken")
        return current["config"]

    agent = Agent(current["config"], reload=reload)
    agent.current = current  # type: ignore[attr-defined]
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        until(lambda: len(held(kernel).endpoints) == 2)
        yield agent
    finally:
        agent.stop()
        thread.join(60)
    assert not thread.is_alive()


def test_follows_the_directory(running: Agent, shop: Path, kernel: Path) -> None:
    (shop / "more.yaml").write_text(POD.format(name="cache", node="n1", address="10.0.0.3"))
    until(lambda: "shop/cache" in held(kernel).endpoints)
    (shop / "policy.yaml").write_text(BROKEN_POLICY)
    until(lambda: bool(running.store.problems))
    assert len(held(kernel).policies) == 1, "a typo never opens the cluster"
    (shop / "policy.yaml").unlink()
    until(lambda: not held(kernel).policies)


def test_stop_leaves_the_rules_in_force(shop: Path, kernel: Path) -> None:
    Agent(settings(shop, kernel)).run(once=True)
    program = held(kernel)
    assert set(program.endpoints) == {"shop/web", "shop/db"}
    again = Agent(settings(shop, kernel))
    again.run(once=True)
    assert held(kernel) == program


def test_once_fails_with_what_went_wrong(shop: Path, kernel: Path) -> None:
    class Refuse:
        @hookimpl(wrapper=True)
        def polyplane_apply(self) -> Generator[None, Applied, Applied]:
            yield
            raise ApplyError("refused", backend="memory", retryable=False)

    with pytest.raises(ApplyError, match="memory: refused"):
        Agent(settings(shop, kernel), wrappers=[Refuse()]).run(once=True)


def test_once_waits_for_a_busy_kernel_but_not_for_ever(shop: Path, kernel: Path) -> None:
    class Busy:
        def __init__(self, times: int) -> None:
            self.times = times

        @hookimpl(wrapper=True)
        def polyplane_apply(self) -> Generator[None, Applied, Applied]:
            if self.times:
                self.times -= 1
                raise ApplyError("busy", backend="memory", retryable=True)
            return (yield)

    Agent(settings(shop, kernel, retry_max=0.01), wrappers=[Busy(2)]).run(once=True)
    assert len(held(kernel).endpoints) == 2
    with pytest.raises(ApplyError, match="busy"):
        Agent(settings(shop, kernel, retry_max=0.01), wrappers=[Busy(99)]).run(once=True)


def test_source_that_never_pauses_does_not_starve_the_loop(shop: Path, kernel: Path) -> None:
    agent = Agent(settings(shop, kernel))
    for index in range(3 * MAX_TAKEN):
        agent._queue.put(SourceProblem(where=str(index), problem=None))
    agent._wait(None)
    assert agent._queue.qsize() >= MAX_TAKEN


def test_backend_that_cannot_run_here_keeps_the_agent_from_starting(shop: Path, kernel: Path) -> None:
    class NoRoot:
        @hookimpl(wrapper=True)
        def polyplane_capabilities(self) -> Generator[None, Capabilities, Capabilities]:
            yield
            return Capabilities(supported=frozenset(Feature), missing=("no CAP_NET_ADMIN; run as root",))

    with pytest.raises(BackendUnavailable, match="run as root"):
        Agent(settings(shop, kernel), wrappers=[NoRoot()])
    with pytest.raises(PluginNotFound):
        Agent(settings(shop, kernel, backend="absent"))
    with pytest.raises(PluginNotFound):
        Agent(settings(shop, kernel, observers=("absent",)))


def test_reload_takes_over_what_can_change_and_reports_the_rest(running: Agent, shop: Path, kernel: Path) -> None:
    current = running.current  # type: ignore[attr-defined]
    current["config"] = settings(shop, kernel, deny_action=DenyAction.REJECT, node="n2")
    with capture_logs() as logs:
        running.reload()
        until(lambda: held(kernel).options.deny_action is DenyAction.REJECT)
        until(lambda: any(entry["event"] == "configuration reloaded" for entry in logs))
        current["error"] = True
        running.reload()
        until(lambda: any(entry["log_level"] == "error" for entry in logs))
    said = {entry["event"]: entry for entry in logs}
    assert said["these settings take effect at the next start"]["settings"] == ["node"]
    assert running.config.node == "n1"
    assert said["configuration reloaded"]["changed"] == ["deny_action"]
    assert said["configuration is broken, the old one stays"]["error"] == "broken"
    assert len(held(kernel).endpoints) == 2


def test_the_log_level_lasts_until_the_configuration_is_read_again(running: Agent, shop: Path, kernel: Path) -> None:
    assert running.log_level() is LogLevel.INFO
    running.set_log_level(LogLevel.DEBUG)
    until(lambda: running.log_level() is LogLevel.DEBUG)
    assert structlog.get_logger("polyplane.test").is_enabled_for(logging.DEBUG)
    running.reload()
    until(lambda: running.log_level() is LogLevel.INFO)
    assert not structlog.get_logger("polyplane.test").is_enabled_for(logging.DEBUG)


def test_addresses_of_this_machine_and_of_the_configuration_are_the_node(shop: Path, kernel: Path) -> None:
    Agent(settings(shop, kernel, node_addresses=("192.0.2.77",), detect_node_addresses=True)).run(once=True)
    assert held(kernel).node_addresses == local_addresses() | {Cidr.parse("192.0.2.77")}
    assert all(not address.address_text.startswith("127.") for address in local_addresses())


# --- one shot ----------------------------------------------------------------------------------------------------------


def test_compile_directory_takes_the_only_node(shop: Path) -> None:
    program, store = compile_directory(shop)
    assert set(program.endpoints) == {"shop/web", "shop/db"}
    assert len(store.policies) == 1
    assert compile_directory(shop, "elsewhere")[0].endpoints == {}


def test_compile_directory_asks_for_the_node_if_there_are_several(shop: Path) -> None:
    (shop / "more.yaml").write_text(POD.format(name="cache", node="n2", address="10.0.0.3"))
    with pytest.raises(ConfigError, match="the pods are on 2 nodes; choose one with --node: n1, n2"):
        compile_directory(shop)


def test_compile_directory_without_pods_or_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pod is assigned to a node"):
        compile_directory(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        compile_directory(tmp_path / "absent")
