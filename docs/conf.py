"""Sphinx settings: the pages that a Git host shows, as one site; ``make docs`` builds it into ``build/docs``.

The source folder is the checkout, so that a relative link works in both. The menu is made from the tables of
``docs/README.md``: a page is added there, and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from skewless.version import __version__

ROOT = Path(__file__).resolve().parent.parent
INDEX = "docs/README"

project = "skewless"
author = "the skewless developers"
project_copyright = "the skewless developers"
version = release = __version__
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/api/*.md",
    "docs/decisions/*.md",
    "benchmarks/RESULTS.md",
    "tests/README.md",
]
# Folders without pages: Sphinx would walk through each of them.
exclude_patterns = [
    ".*", "build", "dist", "feature_repo", "infra", "serving", "shared", "skewless", "training", "validation",
]  # fmt: skip

myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # a page may begin a level deeper where a table of another page ends

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = True
# The types of other libraries and our internal types have no page; a link of a page must lead somewhere.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = f"skewless {__version__}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def _read_menu() -> list[tuple[str, list[str]]]:
    """Return each section of the index with its pages."""
    text = (ROOT / f"{INDEX}.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    menu = []
    for title, body in sections:
        links = re.findall(r"^\| \[[^\]]+\]\(([^)#]+)\.md\)", body, re.MULTILINE)
        pages = [Path(INDEX).parent.joinpath(link).as_posix() for link in links]
        menu.append((title, [re.sub(r"^docs/\.\./", "", page) for page in pages]))
    return menu


def _add_menu(_app: Sphinx, name: str, content: list[str]) -> None:
    """Add the menu to the first page, where a Git host does not show it."""
    if name == "docs/decisions/README":
        content[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"
    if name != root_doc:
        return
    for title, pages in _read_menu():
        entries = [f"All pages <{INDEX}>", *pages] if title == _read_menu()[0][0] else pages
        content[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", *entries, "```", ""])


def _add_front_page(app: Sphinx, error: Exception | None) -> None:
    """Write ``index.html``, which a web server looks for."""
    if error is None:
        (Path(app.outdir) / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>{project}</title>'
            f'<meta http-equiv="refresh" content="0; url={root_doc}.html"><a href="{root_doc}.html">{project}</a>\n',
            encoding="utf-8",
        )


def setup(app: Sphinx) -> None:
    """Register the menu and the front page."""
    app.connect("source-read", _add_menu)
    app.connect("build-finished", _add_front_page)
