"""``polyplane backends``: which dataplanes there are, and what each can do on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from polyplane.cli.options import ConfigFlag, Output, OutputFlag, read
from polyplane.cli.output import console, print_data, print_table
from polyplane.config import Config
from polyplane.errors import PolyplaneError
from polyplane.hookspecs import BACKENDS
from polyplane.ir.features import Capabilities
from polyplane.plugins import PluginInfo, list_plugins, load_backend


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One announced backend: its capabilities, or why it cannot even state them."""

    info: PluginInfo
    capabilities: Capabilities | None = None
    error: str = ""

    @property
    def state(self) -> tuple[str, str]:
        """Word and colour."""
        if self.capabilities is None:
            return "broken", "red"
        return ("missing pieces", "yellow") if self.capabilities.missing else ("ready", "green")


def backends(config: ConfigFlag = None, output: OutputFlag = Output.TEXT) -> None:
    """List the installed backends: whether they load, what they can do here, and what is missing."""
    settings = read(config, {}).config
    rows = [_ask(info, settings) for info in list_plugins(BACKENDS)]
    if output is not Output.TEXT:
        print_data([_plain(row) for row in rows], output)
        return
    print_table(
        ("backend", "state", "features", "from"),
        [
            (
                row.info.name,
                Text(*row.state),
                "" if row.capabilities is None else f"{len(row.capabilities.supported)} of {_features(row.capabilities)}",
                f"{row.info.distribution} {row.info.version}",
            )
            for row in rows
        ],
    )
    for row in rows:
        notes = [row.error] if row.capabilities is None else _notes(row.capabilities)
        if notes:
            console().print(Text(f"\n{row.info.name}", style="bold"))
        for note in notes:
            console().print(Text(f"  {note}"))


def _ask(info: PluginInfo, settings: Config) -> _Row:
    try:
        dataplane = load_backend(info.name, settings.backend_options.get(info.name, {}))
        return _Row(info=info, capabilities=dataplane.capabilities())
    except PolyplaneError as error:
        return _Row(info=info, error=str(error))


def _features(capabilities: Capabilities) -> int:
    return len(capabilities.supported) + len(capabilities.unsupported)


def _notes(capabilities: Capabilities) -> list[str]:
    notes = [f"missing: {piece}" for piece in capabilities.missing]
    for gap in capabilities.unsupported:
        since = f" (since Linux {gap.since_kernel})" if gap.since_kernel else ""
        notes.append(f"without {gap.feature}: {gap.reason}{since}")
    return notes + [f"{name}: {value}" for name, value in capabilities.details]


def _plain(row: _Row) -> dict[str, object]:
    plain: dict[str, object] = {
        "name": row.info.name,
        "distribution": row.info.distribution,
        "version": row.info.version,
        "state": row.state[0],
    }
    if row.capabilities is None:
        return plain | {"error": row.error}
    return plain | {
        "features": sorted(feature.value for feature in row.capabilities.supported),
        "unsupported": {
            gap.feature.value: {"reason": gap.reason} | ({"since_kernel": gap.since_kernel} if gap.since_kernel else {})
            for gap in row.capabilities.unsupported
        },
        "missing": list(row.capabilities.missing),
        "details": dict(row.capabilities.details),
    }
