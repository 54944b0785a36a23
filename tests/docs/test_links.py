"""Every link leads somewhere, every page is in the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, anchors, links, prose


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name if path.parent == ROOT else f"docs/{path.name}")
def test_relative_links_resolve(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    broken = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or (anchor and anchor not in anchors(place.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("index", [ROOT / "README.md", DOCS / "README.md"], ids=["README.md", "docs/README.md"])
def test_the_index_names_every_page(index: Path) -> None:
    wanted = {path.resolve() for path in DOCS.glob("*.md")} - {index.resolve()}
    found = {(index.parent / link.partition("#")[0]).resolve() for link in links(index.read_text(encoding="utf-8"))}
    assert wanted - found == set()


def test_the_index_of_the_site_names_each_page_once() -> None:
    targets = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\)", (DOCS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {*DOCS.glob("*.md"), *DOCS.glob("api/*.md"), DOCS / "decisions" / "README.md"} - {DOCS / "README.md"}
    assert len(targets) == len(set(targets))
    assert pages - {(DOCS / target).resolve() for target in targets} == set()


def test_no_page_has_a_line_that_is_too_long_to_read() -> None:
    long = [
        (path.name, line)
        for path in PAGES
        for line in prose(path.read_text(encoding="utf-8")).splitlines()
        if len(line) > 120 and not line.startswith("|")
    ]
    assert long == []
