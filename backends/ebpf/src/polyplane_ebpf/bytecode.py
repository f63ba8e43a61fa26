"""The program's bytecode: as it came with polyplane, from the cache, or compiled by bcc in a process of its own.

bcc is never imported here: it and LLVM would stay in the agent's memory (120 MB) for what is needed once in a while.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from polyplane.errors import BackendUnavailable
from polyplane_ebpf import maps
from polyplane_ebpf.stubtree import write_tree

#: The functions of the program, each loaded by itself.
FUNCTIONS: Final = ("polyplane_filter", "polyplane_origin", "polyplane_answer", "polyplane_refuse")
#: The interpreter that the operating system's bcc belongs to.
SYSTEM_PYTHON: Final = "/usr/bin/python3"

_PACKAGE: Final = "polyplane_ebpf"
_COMPILE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytecode:
    """Functions with their placeholders still in them. ``source`` is a digest of what they were compiled from."""

    source: str
    compiler: str
    functions: Mapping[str, bytes]

    @property
    def tag(self) -> str:
        """Twelve hex digits over the instructions: what names of pinned programs end in."""
        digest = hashlib.sha256()
        for name in sorted(self.functions):
            digest.update(name.encode() + self.functions[name])
        return digest.hexdigest()[:12]


def source_text() -> str:
    """Return the program's source: its files in the order of their names."""
    parts = sorted((part for part in (files(_PACKAGE) / "program").iterdir() if part.name[:1].isdigit()), key=lambda part: part.name)
    return "".join(f'#line 1 "{part.name}"\n{part.read_text(encoding="utf-8")}' for part in parts)


def flags() -> list[str]:
    """Return what the source is compiled with."""
    return [f"-D{name}={number:#x}" for name, number in sorted(maps.definitions().items())]


def source_digest() -> str:
    """Return a digest of everything that the bytecode depends on, compilers aside."""
    return hashlib.sha256(json.dumps([source_text(), flags(), FUNCTIONS, sys.byteorder]).encode()).hexdigest()


def obtain(choice: str, cache: Path) -> Bytecode:
    """Return bytecode of the present source. ``choice``: ``auto``, ``prebuilt`` or ``compile``, as in the options.

    :raises BackendUnavailable: there is none and none can be made
    """
    wanted = source_digest()
    if choice != "compile":
        prebuilt = _read(files(_PACKAGE).joinpath("prebuilt/program.json").read_text(encoding="ascii")) if _has_prebuilt() else None
        if prebuilt is not None and prebuilt.source == wanted:
            return prebuilt
        if choice == "prebuilt":
            raise BackendUnavailable(
                f"the bytecode that came with polyplane-ebpf was made from another source, or for a {_other()}-endian machine; "
                "set bytecode = 'auto' and install python3-bpfcc"
            )
    path = cache / f"program-{wanted[:16]}.json"
    try:
        cached = _read(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        cached = None
    if cached is not None and cached.source == wanted:
        return cached
    made = build()
    store(made, path)
    return made


def build() -> Bytecode:
    """Compile the source with bcc, in a child.

    :raises BackendUnavailable: no bcc, or it does not compile
    """
    with tempfile.TemporaryDirectory(prefix="polyplane-ebpf-") as tree:
        write_tree(Path(tree))
        request = {"source": source_text(), "flags": flags(), "functions": FUNCTIONS, "tree": tree}
        child = str(files(_PACKAGE).joinpath("compile_child.py"))
        try:
            done = subprocess.run(
                [SYSTEM_PYTHON, "-I", child],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=_COMPILE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendUnavailable(f"cannot compile the program: {error}; install python3 and python3-bpfcc of the system") from error
    if done.returncode:
        said = (
            " ".join(line.strip() for line in done.stderr.splitlines() if "error:" in line or line.startswith("no bcc"))
            or done.stderr[-300:]
        )
        raise BackendUnavailable(f"bcc does not compile the program: {said.strip()}; install python3-bpfcc of the system")
    answer = json.loads(done.stdout)
    functions = {name: base64.b64decode(code) for name, code in answer["functions"].items()}
    return Bytecode(source=source_digest(), compiler=answer["compiler"], functions=functions)


def store(bytecode: Bytecode, path: Path) -> None:
    """Write bytecode to a file; a cache that cannot be written is none, and no error."""
    content = {
        "source": bytecode.source,
        "compiler": bytecode.compiler,
        "functions": {name: base64.b64encode(code).decode("ascii") for name, code in sorted(bytecode.functions.items())},
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        draft.replace(path)
    except OSError:
        return


def _read(text: str) -> Bytecode | None:
    try:
        raw: Any = json.loads(text)
        functions = {str(name): base64.b64decode(code, validate=True) for name, code in raw["functions"].items()}
        if set(functions) != set(FUNCTIONS) or any(len(code) % 8 for code in functions.values()):
            return None
        return Bytecode(source=str(raw["source"]), compiler=str(raw["compiler"]), functions=functions)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None


def _has_prebuilt() -> bool:
    return files(_PACKAGE).joinpath("prebuilt/program.json").is_file()


def _other() -> str:
    return "big" if sys.byteorder == "little" else "little"


def main() -> None:
    """Write the bytecode that ships with polyplane: ``python -m polyplane_ebpf.bytecode``."""
    store(build(), Path(str(files(_PACKAGE).joinpath("prebuilt/program.json"))))


if __name__ == "__main__":
    main()
