"""IR values as plain data, for ``--output json|yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from polyplane.ir.cidr import Cidr
from polyplane.ir.program import IcmpType, PortRange


def plain(value: Any) -> Any:
    """Return the value made of mappings, lists, strings, numbers and None; addresses, ports and ICMP types as text.

    Parts that are empty or None are left out of dataclasses: what is absent restricts nothing.
    """
    match value:
        case Enum():
            return value.value
        case Cidr() | PortRange() | IcmpType():
            return str(value)
        case Mapping():
            return {str(key): plain(value[key]) for key in sorted(value)}
        case AbstractSet():
            return [plain(item) for item in sorted(value)]
        case tuple() | list():
            return [plain(item) for item in value]
        case _ if is_dataclass(value):
            parts = {field.name: getattr(value, field.name) for field in fields(value)}
            return {name.replace("_", "-"): plain(part) for name, part in parts.items() if part not in (None, ())}
        case _:
            return value
