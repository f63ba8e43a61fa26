"""Sphinx's settings: the plain Markdown of this folder as a site (``tox -e docs``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "polyplane"
extensions = ["myst_parser"]
html_theme = "furo"
root_doc = "README"
exclude_patterns = ["_build", "tests"]
myst_heading_anchors = 4
#: Links that leave docs/ (to examples, READMEs) are for readers of the repository; docs/tests follows them.
suppress_warnings = ["myst.xref_missing"]


def add_contents(_app: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page a table of contents for the side bar, which plain Markdown has no way to say."""
    if name == root_doc:
        here = Path(__file__).parent
        folders = ("tutorial", "how-to", "reference", "explanation")
        pages = [page.relative_to(here).with_suffix("") for folder in folders for page in sorted((here / folder).glob("*.md"))]
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(map(str, pages)) + "\n```\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the above."""
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True}
