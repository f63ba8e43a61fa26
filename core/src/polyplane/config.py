"""Configuration: defaults < TOML file < environment < flags, every value with its origin.

::

    [agent]                      # also POLYPLANE_BACKEND=nftables, POLYPLANE_NODE=…, and so on
    backend = "nftables"
    node = "worker-1"
    source = "manifests"

    [source.manifests]           # options of each plugin, read by the plugin itself
    directory = "/etc/polyplane/policies"

    [backend.nftables]           # also POLYPLANE_BACKEND_OPTIONS__NFTABLES__TABLE=polyplane
    table = "polyplane"

A key that nobody knows is an error that names the nearest one, in the file and in the environment alike.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from polyplane.errors import ConfigError, InvalidProgram
from polyplane.hooktrace import VARIABLE as TRACE_VARIABLE
from polyplane.ir.cidr import Cidr
from polyplane.ir.program import DenyAction, Established, Options

#: Read when it exists and no other file is named.
DEFAULT_FILE: Final = Path("/etc/polyplane/polyplane.toml")
PREFIX: Final = "POLYPLANE_"
#: The table of the file that holds the agent's own settings.
AGENT_TABLE: Final = "agent"
#: Tables of the file with options of plugins, by name of the plugin, and the settings they become.
OPTION_TABLES: Final[Mapping[str, str]] = {"source": "source_options", "backend": "backend_options", "observer": "observer_options"}
#: What a running agent takes over on SIGHUP; everything else needs a restart.
LIVE: Final = frozenset({"established", "deny_action", "log_level", "audit_interval"})

#: Kubernetes sets these for a Service named polyplane; they are not meant for us (``POLYPLANE_PORT=tcp://…``).
_SERVICE_LINK: Final = re.compile(r"POLYPLANE_([A-Z0-9_]*_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
#: Variables with our prefix that are no settings.
_NO_SETTINGS: Final = frozenset({TRACE_VARIABLE, "POLYPLANE_CONFIG"})
_OTHER_TOOLS: Final = ("POLYPLANE_CONFORMANCE_", "POLYPLANE_TEST_")


class Locate(StrEnum):
    """A way to find where on the node pods are; what a pod's annotation says always wins."""

    #: What fits the backend: routes, ports or ovsdb, and cni beside them.
    AUTO = "auto"
    #: Host routes to interfaces that have a pod at their other end.
    ROUTES = "routes"
    #: The same, and pods on a bridge by its ports: for backends that see packets there.
    PORTS = "ports"
    #: Results that network plugins leave on the node: name and address of a pod before its first process starts.
    CNI = "cni"
    #: The database of Open vSwitch.
    OVSDB = "ovsdb"


class UnknownPods(StrEnum):
    """What becomes of the traffic of addresses that are on this node and belong to no pod that the source has told of."""

    ALLOW = "allow"
    DENY = "deny"


class LogLevel(StrEnum):
    """The least important messages that are still logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines look."""

    #: Colours on a terminal, ``key=value`` elsewhere.
    TEXT = "text"
    #: One JSON object a line.
    JSON = "json"


def _listed(value: object) -> object:
    """Lists may be written with commas where a list cannot be written: in the environment and in flags."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _parsed(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is neither an address nor a prefix."""
    for text in value:
        try:
            Cidr.parse(text)
        except InvalidProgram as error:
            raise ValueError(str(error)) from error
    return value


_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
_Prefixes = Annotated[_Names, AfterValidator(_parsed)]
_Ways = Annotated[tuple[Locate, ...], NoDecode, BeforeValidator(_listed)]
_PluginOptions = dict[str, dict[str, Any]]


class Config(BaseSettings):
    """Every setting, checked. Field descriptions are the reference."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__")

    backend: str = Field("nftables", description="which dataplane enforces: a name from `polyplane backends`")
    node: str | None = Field(None, description="name of this node in the cluster; default: the host name", min_length=1)
    source: str = Field("manifests", description="where cluster objects come from: the name of a source plugin")
    observers: _Names = Field(("log",), description="plugins that are told what happened, in this order")
    audit_interval: float = Field(300, ge=0, description="seconds between audits of what is in the kernel; 0: never")
    established: Established = Field(Established.RECHECK, description="what a policy change means for open connections")
    deny_action: DenyAction = Field(DenyAction.DROP, description="what the sender of a denied packet notices")
    node_addresses: _Prefixes = Field((), description="addresses of this node besides those of its Node object")
    detect_node_addresses: bool = Field(default=True, description="whether addresses of local interfaces count as this node's")
    locate: _Ways = Field((Locate.AUTO,), description="ways to find where pods are that do not say it; none: by their addresses alone")
    cni_results: str = Field("/var/lib/cni/results", description="where network plugins leave their results, for `cni`")
    ovsdb: str = Field(
        "",
        description="the database server of Open vSwitch, for `ovsdb`; empty: `db.sock` in the backend's `run_dir`, or in /run/openvswitch",
    )
    unknown_pods: UnknownPods = Field(UnknownPods.ALLOW, description="what becomes of traffic of pods that the source has not told of yet")
    pod_prefixes: _Prefixes = Field((), description="prefixes of this node's pods, for `unknown_pods`; default: those of its Node object")
    coalesce: float = Field(0.01, ge=0, le=60, description="seconds of quiet to wait for before a change is applied")
    coalesce_max: float = Field(0.1, ge=0, le=60, description="seconds after which a change is applied although more keep coming")
    retry_max: float = Field(30, gt=0, le=3600, description="longest pause, in seconds, between attempts to apply after failures")
    log_level: LogLevel = Field(LogLevel.INFO, description="least important messages that are still logged")
    log_format: LogFormat = Field(LogFormat.TEXT, description="how log lines look")
    listen: str = Field("", description="address:port of /healthz, /readyz and /metrics, such as 127.0.0.1:9469 or :9469; empty: none")
    source_options: _PluginOptions = Field({}, description="options of each source: [source.<name>] in the file")
    backend_options: _PluginOptions = Field({}, description="options of each backend: [backend.<name>] in the file")
    observer_options: _PluginOptions = Field({}, description="options of each observer: [observer.<name>] in the file")

    @field_validator("node_addresses")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not Cidr.parse(text).is_host:
                raise ValueError(f"{text} is a prefix; write single addresses")
        return value

    @property
    def options(self) -> Options:
        """What the program says about it."""
        return Options(established=self.established, deny_action=self.deny_action)

    @property
    def own_addresses(self) -> frozenset[Cidr]:
        """The configured addresses of the node, as host prefixes."""
        return frozenset(Cidr.parse(text) for text in self.node_addresses)

    @property
    def own_pod_prefixes(self) -> frozenset[Cidr]:
        """The configured prefixes of the node's pods."""
        return frozenset(Cidr.parse(text) for text in self.pod_prefixes)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # given by pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing from the surroundings behind the caller's back: `load` reads the layers and remembers which gave what."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it came from; ``key`` is dotted below a plugin's options (``backend_options.nftables.table``)."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from."""

    config: Config
    settings: tuple[Setting, ...]
    file: Path | None

    def changed(self, other: Config) -> frozenset[str]:
        """Return the names of the settings in which ``other`` differs."""
        return frozenset(name for name in Config.model_fields if getattr(self.config, name) != getattr(other, name))


def load(flags: Mapping[str, object] | None = None, file: Path | None = None) -> Loaded:
    """Read all layers.

    :param flags: settings given on the command line; None as a value means that the flag was not given
    :param file: the TOML file; None: `POLYPLANE_CONFIG`, else `DEFAULT_FILE` if it exists
    :raises ConfigError: naming the key, where it came from and the remedy
    """
    path = file or (Path(os.environ["POLYPLANE_CONFIG"]) if os.environ.get("POLYPLANE_CONFIG") else None)
    if path is None and DEFAULT_FILE.is_file():
        path = DEFAULT_FILE
    layers = [
        ("flag", {key: value for key, value in (flags or {}).items() if value is not None}),
        ("environment", _environment()),
        (f"file {path}", _file(path) if path is not None else {}),
    ]
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in reversed(layers):
        for key, value in _flat(layer):
            _put(merged, key, value)
            origins[key] = origin
    try:
        config = Config(**merged)
    except ValidationError as error:
        _explain(error, origins)
    return Loaded(config=config, settings=tuple(_settings(config, origins)), file=path)


def _settings(config: Config, origins: Mapping[str, str]) -> Iterator[Setting]:
    for name in Config.model_fields:
        value = getattr(config, name)
        if name in OPTION_TABLES.values():
            for key, option in _flat({name: value}):
                yield Setting(key, option, _origin(key, origins[key]))
        else:
            yield Setting(name, value, _origin(name, origins.get(name, "default")))


def _origin(key: str, layer: str) -> str:
    """Name the place in the layer: the variable or the flag."""
    match layer:
        case "environment":
            return f"environment {_variable(key)}"
        case "flag":
            return f"flag --{key.rpartition('.')[2].replace('_', '-')}"
        case _:
            return layer


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "__").upper()


def _flat(layer: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield settings, options of plugins one by one under dotted names."""
    for key, value in layer.items():
        if key in OPTION_TABLES.values() and isinstance(value, Mapping):
            for plugin, options in value.items():
                if isinstance(options, Mapping):
                    yield from ((f"{key}.{plugin}.{option}", content) for option, content in options.items())
                else:
                    yield f"{key}.{plugin}", options
        else:
            yield key, value


def _put(target: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".", 2)
    for part in path:
        target = target.setdefault(part, {})
    target[last] = value


def _file(path: Path) -> dict[str, Any]:
    """Read the file, check its keys and give them the names of the settings."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; name another with --config")
    try:
        content = TomlConfigSettingsSource(Config, path)()
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {str(error)[:1].lower()}{str(error)[1:]}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name another file with --config") from error
    settings: dict[str, Any] = {}
    plain = [name for name in Config.model_fields if name not in OPTION_TABLES.values()]
    for table, values in content.items():
        if table in plain and not (table in OPTION_TABLES and isinstance(values, Mapping)):
            raise ConfigError(f"{path}: {table} belongs into the table [{AGENT_TABLE}]")
        if table != AGENT_TABLE and table not in OPTION_TABLES:
            raise ConfigError(f"{path}: unknown table [{table}]{_nearest(table, (AGENT_TABLE, *OPTION_TABLES))}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path}: {table} must be a table, written [{table}]")
        if table == AGENT_TABLE:
            for key in values:
                if key not in plain:
                    raise ConfigError(f"{path}: unknown key {table}.{key}{_nearest(key, plain)}")
            settings.update(values)
            continue
        for plugin, options in values.items():
            if not isinstance(options, Mapping):
                raise ConfigError(
                    f"{path}: {table}.{plugin} must be a table, written [{table}.{plugin}]; the {table} is chosen by {table} in [{AGENT_TABLE}]"
                )
        settings[OPTION_TABLES[table]] = values
    return settings


def _environment() -> dict[str, Any]:
    """Read the environment's settings, refusing variables with our prefix that are none."""
    names = {_variable(name): name for name in Config.model_fields}
    tables = tuple(f"{_variable(name)}__" for name in OPTION_TABLES.values())
    for variable in sorted(os.environ):
        if not variable.startswith(PREFIX) or variable in _NO_SETTINGS or variable in names:
            continue
        if variable.startswith((*_OTHER_TOOLS, *tables)) or _SERVICE_LINK.fullmatch(variable):
            continue
        raise ConfigError(f"environment: unknown variable {variable}{_nearest(variable, names)}")
    try:
        found: dict[str, Any] = EnvSettingsSource(Config)()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; options of plugins are written {tables[1]}<NAME>__<OPTION>=<value>") from error
    for key in OPTION_TABLES.values() & found.keys():
        found[key] = {plugin: _literals(options) for plugin, options in found[key].items()} if isinstance(found[key], dict) else found[key]
    return found


def _literals(options: object) -> object:
    """Read numbers and booleans among the strings that the environment gives, as the file would give them."""
    if not isinstance(options, Mapping):
        return options
    return {name: _literal(value) if isinstance(value, str) else value for name, value in options.items()}


def _literal(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _nearest(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(known))}"


def _explain(error: ValidationError, origins: Mapping[str, str]) -> NoReturn:
    """Turn the first of pydantic's findings into our error."""
    finding = error.errors()[0]
    key = str(finding["loc"][0]) if finding["loc"] else ""
    dotted = ".".join(str(part) for part in finding["loc"])
    layer = origins.get(dotted) or origins.get(key) or next((where for name, where in origins.items() if name.startswith(key)), "default")
    if finding["type"] == "extra_forbidden":
        raise ConfigError(f"{layer}: unknown key {key}{_nearest(key, Config.model_fields)}") from error
    message = finding["msg"].removeprefix("Value error, ")
    raise ConfigError(f"{_origin(key, layer)}: {key}: {message[:1].lower()}{message[1:]}, not {finding['input']!r}") from error
