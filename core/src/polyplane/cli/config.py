"""``polyplane config``: every setting, its value, and where that came from."""

from __future__ import annotations

from enum import Enum

from polyplane.cli.options import BackendFlag, ConfigFlag, NodeFlag, Output, OutputFlag, read
from polyplane.cli.output import print_data, print_table


def config(config: ConfigFlag = None, backend: BackendFlag = None, node: NodeFlag = None, output: OutputFlag = Output.TEXT) -> None:
    """Show every setting, its value, and where the value came from: default, file, environment or flag."""
    loaded = read(config, {"backend": backend, "node": node})
    rows = [(setting.key, _value(setting.value), setting.origin) for setting in loaded.settings]
    if output is Output.TEXT:
        print_table(("setting", "value", "from"), [(key, _text(value), origin) for key, value, origin in rows])
    else:
        print_data({key: {"value": value, "from": origin} for key, value, origin in rows}, output)


def _value(value: object) -> object:
    match value:
        case Enum():
            return value.value
        case tuple():
            return [_value(item) for item in value]
        case _:
            return value


def _text(value: object) -> str:
    if value is None or value == []:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
