"""The check of each run of `make test`: the room answers, refuses what nobody may do, and shows added pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from plugins.control_room.tests.conftest import Pages
from skewless.contract.errors import DefinitionError
from skewless_control_room.pages import ACTIONS, PAGES, all_pages
from skewless_control_room.render import templates
from skewless_control_room.saved import save_pages
from tests.worlds.trained import copy_project, open_project

MODULE = "another_package_with_a_page"
SOURCE = """
from skewless_control_room.page import Page

TEMPLATE = '''{% extends "base.html" %}{% block body %}<p id="own">{{ page.text }}</p>{% endblock %}'''


def read(project, query):
    return {"text": f"<b>{query.text('said')}</b> of {len(project.models)} models"}


PAGE = Page(path="/own", question="What is added?", template="own.html", source=TEMPLATE, read=read, menu="Added")
"""


@pytest.fixture
def added_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that registers a page."""
    folder = tmp_path / "site"
    info = folder / "another_package-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{MODULE}.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: another-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[skewless.pages]\nown = {MODULE}:PAGE\n")
    monkeypatch.syspath_prepend(folder)
    templates.cache_clear()
    assert "own" in entry_points(group="skewless.pages").names
    yield
    templates.cache_clear()


def test_the_first_page_names_the_project_and_an_action_needs_the_token_of_its_form(pages: Pages) -> None:
    first = pages.get("/")
    assert first.status == 200
    assert "<title>" in first.text
    assert {pages.post(f"/actions/{action.name}", {"token": "guessed"}).status for action in ACTIONS} == {403}
    assert pages.get("/own").status == 404


@pytest.mark.usefixtures("added_page")
@pytest.mark.parametrize(("page", "problem"), [(3, "is not a Page"), (PAGES[1], "has a path that is in use")])
def test_a_page_that_cannot_be_added_is_named(monkeypatch: pytest.MonkeyPatch, page: object, problem: str) -> None:
    monkeypatch.setattr("skewless_control_room.pages.load_plugins", lambda _: {"own": page})
    with pytest.raises(DefinitionError, match=f"entry point 'own' of skewless.pages: {problem}"):
        all_pages()


@pytest.mark.usefixtures("added_page")
def test_a_page_of_another_package_is_in_the_menu_and_escapes_what_it_shows(
    trained: Path, tmp_path: Path, open_pages: Callable[[Path], Pages]
) -> None:
    pages = open_pages(copy_project(trained, tmp_path / "p"))
    assert ">Added</a>" in pages.get("/").text
    own = pages.get("/own?said=x%26y")
    assert own.status == 200
    assert '<p id="own">&lt;b&gt;x&amp;y&lt;/b&gt; of' in own.text
    assert pages.get("/own.json?said=z").body["text"].startswith("<b>z</b>")
    with open_project(tmp_path / "p") as project:
        assert save_pages(project, tmp_path / "saved").failed == ()
    assert '<p id="own">' in (tmp_path / "saved/own.html").read_text()
