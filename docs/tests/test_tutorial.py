"""Runs tutorials as they are written: each `$ command` of their console blocks, one after the other, in one shell.

The lines below a command are its output: exactly these, except that a line `...` stands for any lines and `…` for any text.
A block after a line with nothing but a name in backticks and a colon is a file of that name; a ``pyproject.toml`` among them is
installed, as far as entry points go.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = [*sorted((ROOT / "docs" / "tutorial").glob("*.md")), ROOT / "docs" / "how-to" / "add-a-policy-api.md"]


@dataclass
class Step:
    """A command and the output that the page promises."""

    command: str
    output: list[str] = field(default_factory=list)

    def pattern(self) -> str:
        lines = (r"(?:.*\n)*?" if line == "..." else re.escape(line).replace("…", ".*") + " *\n" for line in self.output)
        return "".join(lines)


def steps(page: Path) -> list[Step]:
    found: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            elif line.startswith("> ") or line == ">":
                found[-1].command += "\n" + line[2:]
            else:
                found[-1].output.append(line)
    return found


def write_files(page: Path, folder: Path) -> None:
    """Write the files that the page shows; what ``pip install`` would note of them goes next to them."""
    for name, text in re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        (folder / name).write_text(text)
        if name == "pyproject.toml":
            project = tomllib.loads(text)["project"]
            info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
            groups = project["entry-points"].items()
            lines = (line for group, entries in groups for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())))
            (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def outputs(commands: list[str], folder: Path) -> list[str]:
    """Run the commands in one shell and return what each has written."""
    script = "".join(f"{{ {command}\n}} 2>&1\nprintf '\\n\\036'\n" for command in commands)
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    done = subprocess.run(["bash"], input=script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240)
    return [text.removesuffix("\n") for text in done.stdout.split("\036")[:-1]]


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_runs_as_written(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_files(page, tmp_path)
    wanted = steps(page)
    assert wanted
    got = outputs([step.command for step in wanted], tmp_path)
    for step, output in zip(wanted, got, strict=True):
        text = output if output.endswith("\n") or not output else output + "\n"
        assert re.fullmatch(step.pattern(), text), f"$ {step.command}\n{text}\ninstead of\n" + "\n".join(step.output)
