"""The render tier: the native text of every scenario's deltas, compared with golden files that the backend keeps.

One file for each scenario: the text for every step, under a line that names it. No privileges, no kernel.

Most scenarios begin with the same cluster. Where its text is long, a backend keeps it once, in ``start.txt``; the other files
then say so in its place. The file's presence asks for that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from polyplane.ir.program import Program
from polyplane.plugins import Dataplane
from polyplane.reconcile.diff import diff
from polyplane_conformance.actions import Restart
from polyplane_conformance.cast import NODE
from polyplane_conformance.control import ControlPlane, writes_of
from polyplane_conformance.gaps import distribution_folders
from polyplane_conformance.model import world_of
from polyplane_conformance.scenario import Scenario

#: Where backends keep their golden files, relative to their package or checkout.
PLACES: Final = ("golden/conformance", "tests/golden/conformance")
#: Where the text of the cluster that most scenarios begin with is kept, if it is kept apart.
START: Final = "start.txt"
_HEADING: Final = "the cluster at the start"


class Impure(AssertionError):
    """The same delta was rendered differently the second time."""


def render_scenario(scenario: Scenario, dataplane: Dataplane) -> str:
    """Return the native text of all steps of a scenario, for the node under test.

    :raises Impure: when rendering again gives another text
    """
    world = world_of(scenario)
    control = ControlPlane((NODE,), capabilities=dataplane.capabilities())
    program = Program()
    parts = []
    batches = [(_HEADING, writes_of(world.objects.values()))]
    for number, step in enumerate(scenario.steps, 1):
        writes = [write for action in step.actions if not isinstance(action, Restart) for write in world.perform(action)]
        batches.append((f"step {number}", writes))
    for title, writes in batches:
        target = control.feed(writes)[NODE]
        delta = diff(program, target)
        text = dataplane.render(delta)
        if dataplane.render(delta) != text:
            raise Impure(f"{scenario.name}, {title}: rendering the same delta twice gives two texts")
        parts.append(f"### {title}\n{text.rstrip()}\n")
        program = target
    return "\n".join(parts)


def golden_folder(backend: str, chosen: Path | None, root: Path) -> Path | None:
    """Return where a backend keeps its golden files: as chosen, with its package or checkout, or below the root of this run; None if nowhere."""
    if chosen is not None:
        return chosen
    places = [folder / place for folder in distribution_folders(backend) for place in PLACES]
    return next((place for place in (*places, root / PLACES[-1]) if place.is_dir()), None)


def golden_file(folder: Path, scenario: Scenario) -> Path:
    """Return the golden file of a scenario."""
    return folder / scenario.topic / f"{scenario.name.partition('/')[2]}.txt"


def without_start(text: str, start: str) -> str:
    """Return a scenario's text with a pointer to ``start.txt`` in place of what that says: ``start``, the bare cast's own text."""
    return text.replace(start, f"### {_HEADING}\nas in {START}\n", 1) if text.startswith(start) else text
