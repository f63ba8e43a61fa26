"""Gaps: what a backend cannot do yet, stated by the backend itself in its ``conformance.toml``, each with a reason.

::

    [[gap]]
    scenario = "ports/number-sctp"   # a name or a pattern
    tier = "netns"                   # optional: only there
    kind = "notyet"                  # notimpl: ours to do; notyet: the kernel's or a library's; never: this dataplane cannot
    reason = "the kernel's … lacks …"
    since_kernel = "6.12"            # optional: from here on it is no excuse

A gap is strict: a scenario that passes in spite of it fails the run, and a gap that names no scenario is an error. And it
never means open: traffic that must be denied is denied, or the scenario fails, gap or no gap.

The same file may say how to harm the backend's state from outside, for the behaviour that drift is repaired::

    [[damage]]
    name = "our table is gone"
    command = ["nft", "delete", "table", "inet", "polyplane"]

and whether packets pass through it at all (``packets = false``: the netns tier has nothing to send). It may also say how
the pods of a sandbox have to be wired for this dataplane (`polyplane_conformance.sandbox.Wiring`)::

    wiring = "bridge"                # default: "routed"

and how to make the dataplane forget its connections, where that takes more than ``conntrack -F``; ``{python}`` is this interpreter::

    forget = ["{python}", "-m", "polyplane_acme", "forget"]

and how many native operations one pod more or less may take, where a pod needs more of its dataplane than to be a member of sets::

    pod_operations = 64              # default: 8

and who else can read the kernel, with other tools than the backend itself: a function that is given the program and the path of
the node's network namespace, and says what differs. It is asked after each step::

    witness = "polyplane_acme.witness:differences"
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Final, Literal

import msgspec

from polyplane.hookspecs import BACKENDS
from polyplane.ir.program import Program
from polyplane.plugins import find
from polyplane_conformance import suite
from polyplane_conformance.sandbox.topology import Wiring

FILE: Final = "conformance.toml"
#: What a pod costs a dataplane that knows it by its addresses and its interface.
POD_OPERATIONS: Final = 8


class GapError(ValueError):
    """A statement of gaps that cannot be used; the message names the file and the remedy."""


class Gap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing the backend cannot do."""

    scenario: str
    kind: Literal["notimpl", "notyet", "never"]
    reason: str
    tier: str | None = None
    since_kernel: str | None = None

    def covers(self, name: str, tier: str) -> bool:
        """Whether the gap speaks of a scenario in a tier."""
        return fnmatchcase(name, self.scenario) and self.tier in (None, tier)


class Damage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A way in which somebody else could harm the backend's state: a command run on the node, which the audit must notice."""

    name: str
    command: tuple[str, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    packets: bool = True
    gap: tuple[Gap, ...] = ()
    damage: tuple[Damage, ...] = ()
    wiring: Wiring = Wiring.ROUTED
    forget: tuple[str, ...] = ()
    pod_operations: Annotated[int, msgspec.Meta(ge=1)] = POD_OPERATIONS
    witness: str = ""


@dataclass(frozen=True, slots=True)
class Gaps:
    """All gaps of a backend, from ``source``; empty where it states none."""

    source: str
    gaps: tuple[Gap, ...] = ()
    damage: tuple[Damage, ...] = ()
    #: Whether packets pass through the dataplane at all; without, there is nothing to ask of it in the netns tier.
    packets: bool = True
    #: How the pods of a sandbox are connected to their node.
    wiring: Wiring = Wiring.ROUTED
    #: A command that makes the dataplane forget its connections, beside conntrack; empty: there is nothing to forget.
    forget: tuple[str, ...] = ()
    #: Native operations that one pod more or less may take, however many policies there are.
    pod_operations: int = POD_OPERATIONS
    #: ``module:function`` that reads the kernel by other means than the backend; empty: there is none.
    witness: str = ""

    def differences(self, program: Program, netns: str) -> Sequence[str]:
        """Ask the witness what in the kernel is not as the program has it; nothing where there is no witness.

        :raises GapError: there is no such function
        """
        if not self.witness:
            return ()
        module, _, function = self.witness.partition(":")
        try:
            ask: Callable[[Program, str], Sequence[str]] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise GapError(f"{self.source}: witness {self.witness!r} is no function: {error}") from error
        return ask(program, netns)

    def find(self, name: str, tier: str) -> Gap | None:
        """Return the gap that excuses a scenario in a tier, if any."""
        return next((gap for gap in self.gaps if gap.covers(name, tier)), None)

    def check(self, names: Iterable[str]) -> None:
        """Check that every gap speaks of a scenario that exists, and is no older than this kernel.

        :raises GapError: naming the first that is not
        """
        known = list(names)
        for gap in self.gaps:
            if not any(fnmatchcase(name, gap.scenario) for name in known):
                raise GapError(f"{self.source}: gap {gap.scenario!r} names no scenario; see polyplane-conformance list")
            if gap.since_kernel is not None and _version(os.uname().release) >= _version(gap.since_kernel):
                raise GapError(
                    f"{self.source}: gap {gap.scenario!r} ends with kernel {gap.since_kernel}, and this is {os.uname().release}; remove it"
                )


def load_gaps(backend: str, file: Path | None = None) -> Gaps:
    """Read a backend's gaps: from ``file``, or from its package, or from the root of its checkout.

    :raises GapError: for an unusable file
    :raises polyplane.errors.PluginNotFound: when no such backend is installed
    """
    path = file or gaps_file(backend)
    if path is None:
        return Gaps(source="no conformance.toml")
    try:
        stated = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise GapError(f"{path}: {error}") from error
    return Gaps(
        source=str(path),
        gaps=stated.gap,
        damage=tuple(msgspec.structs.replace(each, command=_with_python(each.command)) for each in stated.damage),
        packets=stated.packets,
        wiring=stated.wiring,
        forget=_with_python(stated.forget),
        pod_operations=stated.pod_operations,
        witness=stated.witness,
    )


def gaps_file(backend: str) -> Path | None:
    """Return where a backend states its gaps, None if it states none.

    :raises polyplane.errors.PluginNotFound: when no such backend is installed
    """
    return next((folder / FILE for folder in distribution_folders(backend) if (folder / FILE).exists()), None)


def _with_python(command: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sys.executable if word == "{python}" else word for word in command)


def distribution_folders(backend: str) -> tuple[Path, ...]:
    """Return where a backend keeps what is not code: its package, and for an editable install the root of its checkout."""
    package = find(BACKENDS, backend).value.partition(":")[0].partition(".")[0]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return ()
    folder = Path(spec.origin).parent
    checkout = [parent for parent in folder.parents[:2] if (parent / "pyproject.toml").exists()]
    return (folder, *checkout)


def behaviour_name(function: Callable[..., object]) -> str:
    """Return the name under which a test of the suite that plays no scenario is known: ``behaviour/agent-restart-is-hitless``."""
    module = function.__module__.rpartition(".")[2].removeprefix("test_")
    topic, _, rest = module.partition("_")
    return "/".join((topic, "-".join(filter(None, (rest, function.__name__.removeprefix("test_")))))).replace("_", "-")


def behaviours() -> tuple[str, ...]:
    """Return the names of all tests of the suite that play no scenario."""
    modules = [import_module(found.name) for found in iter_modules(suite.__path__, f"{suite.__name__}.") if "behaviour" in found.name]
    functions = [value for module in modules for name, value in vars(module).items() if name.startswith("test_")]
    return tuple(behaviour_name(function) for function in functions)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
