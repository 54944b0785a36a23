"""The pages of a project as files: complete for a browser without a server, and without what needs one."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from skewless_control_room import saved as subject
from skewless_control_room.saved import _file, save_pages
from tests.worlds.command_line import run
from tests.worlds.hostile_text import Browser
from tests.worlds.trained import MODEL, Sandbox

_URL = re.compile(r'(?:href|src|action)="([^"]*)"')


def test_the_pages_are_complete_and_need_no_server(spot: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    report = save_pages(spot.project, folder)
    pages = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.html")}
    assert (len(pages), report.failed, report.skipped) == (report.pages, (), 0)
    model = f"models/{MODEL}"
    assert {"index.html", "models.html", "views.html", "runs.html", "changes.html", f"{model}.html"} <= pages.keys()
    assert {f"{model}/versions/{version}.html" for version in ("000001", "000002")} <= pages.keys()
    assert not [name for name in pages if name.startswith(("predictions", "entities", "refused", "search"))]
    for path in pages.values():
        text = path.read_text()
        tags = Browser(text).tags
        assert not tags & {"script", "form", "button", "iframe"}, path
        links = [link.partition("#")[0] for link in _URL.findall(text)]
        assert links
        assert not [link for link in links if link.startswith("/") or ":" in link or "?" in link], path
        assert [link for link in links if link and not (path.parent / unquote(link)).is_file()] == [], path


def test_what_no_page_links_to_is_one_click_from_the_first(spot: Sandbox, tmp_path: Path) -> None:
    save_pages(spot.project, tmp_path)
    assert 'href="models.html"' in (tmp_path / "index.html").read_text()
    assert f'href="models/{MODEL}.html"' in (tmp_path / "models.html").read_text()
    version = (tmp_path / f"models/{MODEL}/versions/000002.html").read_text()
    assert 'href="../../../index.html"' in version
    assert 'href="../../../static/page.css"' in version


def test_the_number_of_pages_is_bounded(spot: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_PAGES", 2)
    report = save_pages(spot.project, tmp_path)
    assert report.pages == len(list(tmp_path.rglob("*.html"))) == 2
    assert report.skipped > 2


def test_the_command_says_what_it_wrote(spot: Sandbox, tmp_path: Path) -> None:
    told = run("ui", "--repo", spot.repo, "--save", tmp_path / "a", "--json").body
    assert (told["folder"], told["failed"], told["skipped"]) == (str(tmp_path / "a"), [], 0)
    said = run("ui", "--repo", spot.repo, "--save", tmp_path / "a")
    assert said.code == 0
    assert said.stdout.replace("\n", "") == f"wrote {told['pages']} pages: open {tmp_path / 'a/index.html'}"


def test_a_folder_that_cannot_be_written_is_named(spot: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = run("ui", "--repo", spot.repo, "--save", tmp_path / "file")
    assert said.code != 0
    assert "cannot be written" in said.stderr


def test_each_path_has_a_file_of_its_own() -> None:
    assert [_file(path) for path in ("/", "/runs/a%3Ab", "/models/m")] == [
        "index.html",
        "runs/a%3Ab.html",
        "models/m.html",
    ]
