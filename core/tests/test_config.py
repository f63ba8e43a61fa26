"""Four layers, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyplane import config
from polyplane.config import Config, Loaded, load
from polyplane.errors import ConfigError
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import DenyAction, Established, Options


@pytest.fixture(autouse=True)
def _nothing_from_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "default.toml")
    for name in config.os.environ:
        if name.startswith("POLYPLANE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "polyplane.toml"


def origins(loaded: Loaded) -> dict[str, str]:
    return {setting.key: setting.origin for setting in loaded.settings}


def test_defaults() -> None:
    loaded = load()
    assert loaded.config == Config()
    assert set(origins(loaded).values()) == {"default"}
    assert loaded.config.options == Options()


def test_each_layer_wins_over_the_one_below(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[agent]\nbackend = "ovs"\nnode = "file"\naudit_interval = 7\n')
    monkeypatch.setenv("POLYPLANE_NODE", "environment")
    monkeypatch.setenv("POLYPLANE_AUDIT_INTERVAL", "8")
    loaded = load({"audit_interval": 9.0, "log_level": None}, file)
    assert (loaded.config.backend, loaded.config.node, loaded.config.audit_interval) == ("ovs", "environment", 9)
    found = origins(loaded)
    assert found["backend"] == f"file {file}"
    assert found["node"] == "environment POLYPLANE_NODE"
    assert found["audit_interval"] == "flag --audit-interval"
    assert found["log_level"] == "default"


def test_default_file_and_named_file(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default.toml").write_text('[agent]\nnode = "default"\n')
    file.write_text('[agent]\nnode = "named"\n')
    assert load().config.node == "default"
    assert load(file=file).config.node == "named"
    monkeypatch.setenv("POLYPLANE_CONFIG", str(file))
    assert load().config.node == "named"
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file; name another with --config"):
        load(file=tmp_path / "absent.toml")


def test_options_of_plugins_merge_key_by_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[backend.nftables]\ntable = "file"\npriority = -5\n[source.manifests]\ndirectory = "/a"\n[observer.log]\n')
    monkeypatch.setenv("POLYPLANE_BACKEND_OPTIONS__NFTABLES__TABLE", "environment")
    monkeypatch.setenv("POLYPLANE_BACKEND_OPTIONS__NFTABLES__COUNTERS", "true")
    monkeypatch.setenv("POLYPLANE_BACKEND_OPTIONS__NFTABLES__SIZE", "10")
    loaded = load({"source_options": {"manifests": {"directory": "/b"}}}, file)
    assert loaded.config.backend_options == {"nftables": {"table": "environment", "priority": -5, "counters": True, "size": 10}}
    assert loaded.config.source_options == {"manifests": {"directory": "/b"}}
    found = origins(loaded)
    assert found["backend_options.nftables.priority"] == f"file {file}"
    assert found["backend_options.nftables.table"] == "environment POLYPLANE_BACKEND_OPTIONS__NFTABLES__TABLE"
    assert found["source_options.manifests.directory"] == "flag --directory"


def test_lists_are_written_with_commas_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPLANE_OBSERVERS", "log, metrics")
    monkeypatch.setenv("POLYPLANE_NODE_ADDRESSES", "10.0.0.1,fd00::1")
    monkeypatch.setenv("POLYPLANE_ESTABLISHED", "keep")
    monkeypatch.setenv("POLYPLANE_DENY_ACTION", "reject")
    loaded = load().config
    assert loaded.observers == ("log", "metrics")
    assert loaded.own_addresses == {Cidr.parse("10.0.0.1"), Cidr.parse("fd00::1")}
    assert loaded.options == Options(established=Established.KEEP, deny_action=DenyAction.REJECT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agent]\nbackand = 'x'", r"unknown key agent.backand; did you mean backend\?"),
        ("[agnet]\nbackend = 'x'", r"unknown table \[agnet\]; did you mean agent\?"),
        ("[zzz]", r"unknown table \[zzz\]; there are agent, backend, observer, source"),
        ("backend = 'x'", r"backend belongs into the table \[agent\]"),
        ("node = 'x'", r"node belongs into the table \[agent\]"),
        ("agent = 3", r"agent must be a table, written \[agent\]"),
        ("[backend]\nname = 'x'", r"backend.name must be a table, written \[backend.name\]; the backend is chosen by backend in \[agent\]"),
        ("[agent]\naudit_interval = 'soon'", r"file .*polyplane.toml: audit_interval: input should be a valid number.*, not 'soon'"),
        ("[agent]\naudit_interval = -1", "audit_interval: input should be greater than or equal to 0, not -1"),
        ("[agent]\nestablished = 'maybe'", "established: input should be 'recheck' or 'keep', not 'maybe'"),
        ("[agent]\nnode_addresses = ['10.0.0.0/8']", "node_addresses: 10.0.0.0/8 is a prefix; write single addresses"),
        ("[agent]\nnode_addresses = ['x']", "node_addresses: 'x' is not an IP address"),
        ("[agent]\nnode = ''", "node: string should have at least 1 character"),
        ("[agent", "polyplane.toml: expected"),
    ],
)
def test_mistakes_in_the_file_name_the_key_and_the_remedy(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(file=file)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("POLYPLANE_BACKAND", "x", r"environment: unknown variable POLYPLANE_BACKAND; did you mean POLYPLANE_BACKEND\?"),
        ("POLYPLANE_AUDIT_INTERVAL", "soon", "environment POLYPLANE_AUDIT_INTERVAL: audit_interval: input should be a valid number"),
        ("POLYPLANE_LOG_LEVEL", "loud", "environment POLYPLANE_LOG_LEVEL: log_level: input should be 'debug'"),
        ("POLYPLANE_BACKEND_OPTIONS", "x", "POLYPLANE_BACKEND_OPTIONS__<NAME>__<OPTION>"),
    ],
)
def test_mistakes_in_the_environment_name_the_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        load()


@pytest.mark.parametrize(
    "variable",
    [
        "POLYPLANE_TRACE_HOOKS",
        "POLYPLANE_CONFORMANCE_SEED",
        "POLYPLANE_SERVICE_HOST",
        "POLYPLANE_SERVICE_PORT_HTTPS",
        "POLYPLANE_PORT",
        "POLYPLANE_PORT_443_TCP_ADDR",
        "POLYPLANE_METRICS_SERVICE_HOST",
        "POLYPLANE_METRICS_PORT",
    ],
)
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Kubernetes sets variables for a Service named polyplane."""
    monkeypatch.setenv(variable, "tcp://10.0.0.1:443")
    assert load().config == Config()


def test_unknown_flag_setting_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"flag: unknown key nod; did you mean node\?"):
        load({"nod": "x"})


def test_what_changed_is_told() -> None:
    assert load({"node": "a"}).changed(Config(node="b", audit_interval=1)) == {"node", "audit_interval"}
