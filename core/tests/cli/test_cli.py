"""The commands: what they print, for people and for scripts, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from manifests import BROKEN_POLICY, POD, POLICY, write_shop
from typer.testing import CliRunner, Result

from polyplane import config
from polyplane.cli.main import app
from polyplane.cli.run import source_flags
from polyplane.errors import ConfigError
from polyplane.hookspecs import hookimpl
from polyplane.ir.features import Capabilities, Feature, Unsupported
from polyplane.ir.program import Program
from polyplane.ir.text import parse_program


@pytest.fixture(autouse=True)
def _nothing_from_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "default.toml")
    for name in os.environ:
        if name.startswith("POLYPLANE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "manifests")


def polyplane(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)


def test_every_command_explains_itself() -> None:
    overview = polyplane("--help")
    for command in ("run", "demo", "check", "render", "show", "explain", "backends", "config", "teardown", "version"):
        assert command in overview.output
        assert polyplane(command, "--help").exit_code == 0
    assert "--install-completion" in overview.output


def test_shell_completes_the_names_of_backends() -> None:
    environment = {**os.environ, "_POLYPLANE_COMPLETE": "complete_bash", "COMP_WORDS": "polyplane run --backend mem", "COMP_CWORD": "3"}
    script = Path(sys.executable).with_name("polyplane")
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["memory"]


# --- check ---------------------------------------------------------------------------------------------------------------


def test_check_of_sound_manifests(shop: Path) -> None:
    result = polyplane("check", shop)
    assert (result.exit_code, result.output) == (0, "1 policies, 2 pods, 1 namespaces: 0 errors, 0 warnings\n")


def test_check_names_file_document_and_line(shop: Path) -> None:
    (shop / "policy.yaml").write_text("---\n" + POD.format(name="a", node="n1", address="10.0.0.9") + "---\n" + BROKEN_POLICY)
    (shop / "broken.yaml").write_text("kind: [\n")
    result = polyplane("check", shop)
    assert result.exit_code == 1
    broken, invalid, total = result.output.splitlines()
    assert broken.startswith("broken.yaml, document 1, line 2: error: ")
    assert invalid.startswith("policy.yaml, document 2, line 15: error: NetworkPolicy shop/web-only: spec.ingress[0].ports[0].port: ")
    assert total.endswith("2 errors, 0 warnings")


def test_check_for_scripts(shop: Path) -> None:
    (shop / "policy.yaml").write_text(BROKEN_POLICY)
    result = polyplane("check", shop, "--output", "json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.output)["problems"]
    assert (problem["severity"], problem["object"]) == ("error", "NetworkPolicy shop/web-only")
    assert yaml.safe_load(polyplane("check", shop, "-o", "yaml").output)["problems"] == [problem]


def test_check_tells_what_a_backend_could_not_enforce(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert polyplane("check", shop, "--backend", "memory").exit_code == 0
    gap = Unsupported(Feature.PORT_RANGES, "it can count only to one")
    limited = Capabilities(supported=frozenset(Feature) - {Feature.PORT_RANGES}, unsupported=(gap,))
    monkeypatch.setattr("polyplane.testing.ALL_FEATURES", limited)
    (shop / "policy.yaml").write_text(POLICY.replace("port: 5432", "port: 5432, endPort: 5440"))
    result = polyplane("check", shop, "--backend", "memory")
    assert result.exit_code == 1
    assert "NetworkPolicy shop/web-only: memory cannot enforce it: " in result.output
    assert "it can count only to one" in result.output


def test_check_of_nothing_is_not_a_success(tmp_path: Path) -> None:
    result = polyplane("check", tmp_path / "absent")
    assert result.exit_code == 2
    assert result.stderr.startswith("polyplane: ")
    assert len(result.stderr.splitlines()) == 1


# --- show, render, explain -------------------------------------------------------------------------------------------------


def test_show_prints_the_canonical_text(shop: Path) -> None:
    result = polyplane("show", shop, "--deny-action", "reject")
    assert result.exit_code == 0
    program = parse_program(result.output)
    assert set(program.endpoints) == {"shop/web", "shop/db"}
    assert program.options.deny_action == "reject"
    data = json.loads(polyplane("show", shop, "-o", "json").output)
    assert data["endpoints"]["shop/db"]["addresses"] == ["10.0.0.2"]
    assert yaml.safe_load(polyplane("show", shop, "-o", "yaml").output) == data


def test_show_from_the_kernel(shop: Path, tmp_path: Path) -> None:
    backend = ("--backend", "memory", "--backend-option", f"file={tmp_path / 'kernel'}")
    (tmp_path / "kernel").write_text(polyplane("show", shop).output)
    result = polyplane("show", "--from-kernel", *backend)
    assert (result.exit_code, result.output) == (0, polyplane("show", shop).output)
    assert json.loads(polyplane("show", "--from-kernel", *backend, "-o", "json").output) == json.loads(
        polyplane("show", shop, "-o", "json").output
    )
    for arguments, said in (((shop, "--from-kernel"), "give one of them"), ((), "or --from-kernel")):
        refused = polyplane("show", *arguments, *backend)
        assert refused.exit_code == 2
        assert said in refused.stderr


def test_a_backend_that_cannot_decode_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("polyplane.testing.MemoryBackend.polyplane_show")
    result = polyplane("show", "--from-kernel", "--backend", "memory")
    assert result.exit_code == 2
    assert "memory cannot decode what is in the kernel; see what it would bring there with `polyplane render" in result.stderr
    monkeypatch.setattr("polyplane.testing.MemoryBackend.polyplane_show", hookimpl(lambda _: "own words\n"), raising=False)
    assert polyplane("show", "--from-kernel", "--backend", "memory").output == "own words\n"
    data = json.loads(polyplane("show", "--from-kernel", "--backend", "memory", "-o", "json").output)
    assert data == {"backend": "memory", "text": "own words\n"}


def test_show_asks_for_the_node(shop: Path) -> None:
    (shop / "more.yaml").write_text(POD.format(name="cache", node="n2", address="10.0.0.3"))
    result = polyplane("show", shop)
    assert (result.exit_code, result.stderr) == (2, "polyplane: the pods are on 2 nodes; choose one with --node: n1, n2\n")
    assert "shop/cache" in polyplane("show", shop, "--node", "n2").output


def test_show_reports_problems_beside_the_answer(shop: Path) -> None:
    (shop / "policy.yaml").write_text(BROKEN_POLICY)
    result = polyplane("show", shop)
    assert result.exit_code == 0
    assert parse_program(result.stdout).policies == {}
    assert "web-only" in result.stderr


def test_render_in_full_and_between_two_directories(shop: Path, tmp_path: Path) -> None:
    full = polyplane("render", shop, "--backend", "memory")
    assert full.exit_code == 0
    assert full.output.startswith("delta 0 -> 1: 4 operations\n")
    later = write_shop(tmp_path / "later")
    (later / "more.yaml").write_text(POD.format(name="cache", node="n1", address="10.0.0.3"))
    step = polyplane("render", later, "--from", shop, "--backend", "memory")
    assert step.output == "delta 1 -> 1: 1 operations\n+ endpoint shop/cache\n  address 10.0.0.3\n"
    assert polyplane("render", shop, "--from", shop, "-b", "memory").output == "delta 1 -> 1: 0 operations\n"
    data = json.loads(polyplane("render", shop, "-b", "memory", "-o", "json").output)
    assert (data["operations"], data["native"]) == (4, full.output)


def test_render_with_an_unknown_backend(shop: Path) -> None:
    result = polyplane("render", shop, "--backend", "absent")
    assert result.exit_code == 2
    assert "no backend named 'absent' is installed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (("shop/web", "shop/db", "-p", 5432), 0, "allow: NetworkPolicy shop/web-only ingress[0]"),
        (("shop/web", "shop/db", "-p", 80), 1, "deny: isolated by NetworkPolicy shop/web-only ("),
        (("192.0.2.1", "10.0.0.2", "-p", 5432), 1, "deny: isolated by"),
        (("shop/db", "shop/web"), 0, "allow: no rule"),
        (("192.0.2.1", "shop/db", "--protocol", "icmp"), 1, "deny: isolated by"),
        (("shop/web", "shop/absent"), 2, "neither an address nor a pod"),
        (("10.0.0.0/8", "shop/db"), 2, "not a single IPv4 address"),
        (("fd00::1", "shop/db"), 2, "no IPv6 address"),
        (("shop/web", "shop/db", "--protocol", "ipx"), 2, "--protocol 'ipx'"),
    ],
)
def test_explain(shop: Path, arguments: tuple[object, ...], exit_code: int, expected: str) -> None:
    result = polyplane("explain", shop, *arguments)
    assert result.exit_code == exit_code
    assert expected in result.output


def test_explain_for_scripts(shop: Path) -> None:
    data = json.loads(polyplane("explain", shop, "shop/web", "shop/db", "-p", 5432, "-o", "json").output)
    assert (data["node"], data["verdict"], data["ingress"]["decided-by"]["action"]) == ("n1", "allow", "allow")


# --- backends, config, version, teardown, demo -------------------------------------------------------------------------------


def test_backends_lists_what_is_there(shop: Path) -> None:
    text = polyplane("backends")
    assert text.exit_code == 0
    assert "memory" in text.output
    (memory,) = [row for row in json.loads(polyplane("backends", "-o", "json").output) if row["name"] == "memory"]
    assert (memory["state"], memory["distribution"], memory["missing"]) == ("ready", "polyplane", [])
    assert "ipv6" in memory["features"]


def test_backend_with_bad_options_is_listed_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPLANE_BACKEND_OPTIONS__MEMORY__COLOUR", "red")
    result = polyplane("backends")
    assert "broken" in result.output
    assert "unknown option 'colour'" in result.output


def test_config_shows_where_values_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "polyplane.toml"
    file.write_text('[agent]\naudit_interval = 7\n[backend.memory]\nfile = "/x"\n')
    monkeypatch.setenv("POLYPLANE_NODE", "n1")
    data = json.loads(polyplane("config", "--config", file, "--backend", "memory", "-o", "json").output)
    assert data["backend"] == {"value": "memory", "from": "flag --backend"}
    assert data["node"] == {"value": "n1", "from": "environment POLYPLANE_NODE"}
    assert data["audit_interval"] == {"value": 7.0, "from": f"file {file}"}
    assert data["backend_options.memory.file"] == {"value": "/x", "from": f"file {file}"}
    assert data["observers"] == {"value": ["log"], "from": "default"}
    table = polyplane("config", "--config", file).output.splitlines()
    assert [line.split() for line in table if line.startswith("node ")] == [["node", "n1", "environment", "POLYPLANE_NODE"]]


def test_mistaken_configuration_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "polyplane.toml"
    file.write_text("[agent]\nbackand = 'x'\n")
    result = polyplane("config", "--config", file)
    assert (result.exit_code, result.stderr) == (2, f"polyplane: {file}: unknown key agent.backand; did you mean backend?\n")


def test_version() -> None:
    data = json.loads(polyplane("version", "-o", "json").output)
    assert data["polyplane"]
    assert data["ir"] == 1
    assert polyplane("version").output.startswith(f"polyplane {data['polyplane']}\n")


def test_teardown_asks_first(shop: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    option = ("--backend", "memory", "--backend-option", f"file={kernel}")
    assert polyplane("run", "--source", shop, "--node", "n1", "--once", *option).exit_code == 0
    declined = polyplane("teardown", *option, text="n\n")
    assert declined.exit_code == 2
    assert kernel.exists()
    removed = polyplane("teardown", *option, "--yes")
    assert (removed.exit_code, kernel.exists()) == (0, False)
    assert removed.output.startswith("memory: everything of ours is removed (")
    assert polyplane("teardown", *option, "--yes").output == "memory: nothing of ours was there\n"


def test_backend_options_are_pairs() -> None:
    result = polyplane("teardown", "--yes", "--backend", "memory", "--backend-option", "file")
    assert (result.exit_code, result.stderr) == (2, "polyplane: --backend-option 'file': write key=value\n")


def test_demo_without_the_conformance_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polyplane_conformance.demo", None)
    result = polyplane("demo")
    assert result.exit_code == 2
    assert "pip install polyplane-conformance" in result.stderr


# --- run -------------------------------------------------------------------------------------------------------------------


def test_source_is_a_name_or_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"source": "manifests", "source_options": {"manifests": {"directory": str(tmp_path)}}}
    assert source_flags(str(tmp_path), None) == expected
    assert source_flags(None, tmp_path) == source_flags("manifests", tmp_path) == expected
    assert source_flags("kubernetes", None) == {"source": "kubernetes"}
    assert source_flags(None, None) == {"source": None}
    monkeypatch.chdir(tmp_path)
    assert source_flags(".", None)["source"] == "manifests"
    for source, directory in ((str(tmp_path), tmp_path), ("kubernetes", tmp_path), (f"{tmp_path}/absent", None)):
        with pytest.raises(ConfigError):
            source_flags(source, directory)


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_run_obeys_real_signals_and_leaves_the_rules(shop: Path, tmp_path: Path) -> None:
    """A real process: started, followed, killed, restarted, reloaded and stopped, over a real directory."""
    kernel, file = tmp_path / "kernel", tmp_path / "polyplane.toml"
    file.write_text(f'[agent]\nnode = "n1"\nlog_format = "json"\ndetect_node_addresses = false\n[backend.memory]\nfile = "{kernel}"\n')
    command = [sys.executable, "-m", "polyplane", "run", "--config", file, "--backend", "memory", "--source", shop]

    @contextmanager
    def start() -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()  # or leaving would wait for ever for an agent that nobody stopped

    def held() -> Program:
        return parse_program(kernel.read_text()) if kernel.exists() else Program()

    with start() as agent:
        until(lambda: len(held().endpoints) == 2, agent)
        agent.kill()
    assert len(held().endpoints) == 2
    with start() as agent:
        (shop / "more.yaml").write_text(POD.format(name="cache", node="n1", address="10.0.0.3"))
        until(lambda: len(held().endpoints) == 3, agent)
        file.write_text(file.read_text().replace("[agent]", '[agent]\nestablished = "keep"'))
        agent.send_signal(signal.SIGHUP)
        until(lambda: held().options.established == "keep", agent)
        agent.send_signal(signal.SIGTERM)
        _, errors = agent.communicate(timeout=60)
    assert agent.returncode == 0
    events = [json.loads(line) for line in errors.splitlines()]
    assert events[0]["event"] == "starting"
    assert events[-1]["event"] == "stopped, the rules stay in force"
    assert len(held().endpoints) == 3
