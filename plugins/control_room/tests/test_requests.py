"""What every page keeps: who may ask, what the reply allows, and what becomes of rubbish."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from html import unescape
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.control_room.tests.conftest import HOST, TOKEN, OnePerson, Pages
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.operations.models.drift import check_drift
from skewless.project import Project
from skewless_control_room.access import Viewer
from skewless_control_room.app import HEADERS, ControlRoom
from skewless_control_room.pages import ACTIONS, PAGES
from skewless_control_room.plots import Span, TimeCurve, plot_bars, plot_histogram, plot_lines, plot_timeline
from skewless_control_room.readers import Readers
from skewless_control_room.render import isolate, to_url
from tests.worlds.hostile_text import MARKED_UP, MARKUP
from tests.worlds.payments_data import TEMPLATE
from tests.worlds.trained import MODEL, NOW, Sandbox, ask, copy_project

NAMED = re.compile(r"\{(\w+)(:path)?\}")
MOST_OF_A_PAGE = 12


def matches(page: str, path: str) -> bool:
    """Return whether a path is one of a page."""
    return re.fullmatch(NAMED.sub("[^/]+", page), path.partition("?")[0]) is not None


def twin(path: str) -> str:
    """Return where the JSON of a page is."""
    page, mark, query = path.partition("?")
    return f"{'/index' if page == '/' else page}.json{mark}{query}"


def paths(value: str) -> list[str]:
    """Return the path of each page, with a value in its place."""
    return [NAMED.sub(value, page.path) for page in PAGES]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]", ""])
def test_a_request_for_another_name_gets_nothing(pages: Pages, host: str) -> None:
    for path in ("/", "/changes", "/index.json"):
        reply = pages.get(path, host=host)
        assert reply.status == 403
        assert "Plan" not in reply.text


def test_every_reply_has_the_policy(pages: Pages) -> None:
    for path in ["/", "/index.json", "/changes", "/changes/99", "/static/page.css", "/static/nothing", "/nothing"]:
        reply = pages.get(path)
        missing = {name for name in HEADERS if name != "cache-control"} - reply.headers.keys()
        assert not missing or reply.status == 404, path
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_no_page_has_inline_style_or_script(pages: Pages) -> None:
    for path in paths("fraud"):
        text = pages.get(path).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src)|javascript:|http-equiv", text), path


@pytest.mark.parametrize("value", MARKUP)
def test_markup_in_a_path_or_query_stays_text(pages: Pages, value: str) -> None:
    for path in [*paths(to_url(value).replace("/", "%2F")), to_url("/search", q=value)]:
        reply = pages.get(path)
        assert reply.status in {200, 400, 404}, path
        assert "<script>alert" not in reply.text
        assert "<img src=x" not in reply.text
        assert "\u202e" not in reply.text.partition("<main")[2]


@given(MARKED_UP)
def test_any_text_is_isolated(text: str) -> None:
    shown = str(isolate(text))
    inner = shown.removeprefix("<bdi>").removesuffix("</bdi>")
    assert "<" not in inner
    assert '"' not in inner
    assert not re.search("[\u202a-\u202e\u2066-\u2069\n\r]", inner)
    assert len(inner) < 3_000


NUMBERS = st.one_of(st.none(), st.floats(), st.floats(-1e6, 1e6))


@given(st.lists(st.tuples(MARKED_UP, NUMBERS), max_size=5), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_plot_of_anything_is_well_formed_and_has_no_number_that_is_none(
    named: list[tuple[str, float | None]], data: st.DataObject
) -> None:
    times = sorted(data.draw(st.lists(st.integers(0, 2**50), max_size=5)))
    values = [data.draw(NUMBERS) for _ in times]
    label = data.draw(MARKED_UP)
    curve = TimeCurve(name=label, times=times, values=values, low=values, high=values)
    edges = sorted(data.draw(st.lists(st.floats(-1e9, 1e9), max_size=5)))
    span = Span(since_us=5, until_us=None, kind="good", text=label, link="/runs")
    drawn = [
        plot_bars(named, unit=label, label=label),
        plot_lines([curve], unit=label, limit=0.5, label=label),
        plot_histogram(edges, [(label, [0.5] * max(len(edges) - 1, 0))], unit=label, label=label),
        plot_timeline([(label, [span])], 0, 10, label=label),
    ]
    for svg in map(str, drawn):
        assert "nan" not in re.sub(r">[^<]*<|\"[^\"]*[^\d.\- ,MLZ\"][^\"]*\"", "", svg)
        assert svg.count("<svg") == svg.count("</svg>") == 1
        assert "<script" not in svg
        assert "<img" not in svg


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, {}),
        ({"token": "wrong"}, {}),
        ({"token": "the-token-of-this-session"}, {"origin": "http://evil.example"}),
        ({"token": "the-token-of-this-session"}, {"sec_fetch_site": "cross-site"}),
        ({"token": "the-token-of-this-session"}, {"sec_fetch_site": "same-site"}),
    ],
)
def test_a_form_of_another_site_does_nothing(pages: Pages, form: dict[str, str], headers: dict[str, str]) -> None:
    for action in ACTIONS:
        reply = pages.post(f"/actions/{action.name}", form, **headers)
        assert reply.status == 403, action.name


def test_a_status_line_is_never_the_text_of_a_link(pages: Pages) -> None:
    for seal in ("", "0" * 64, "é"):
        reply = pages.get(f"/?done=All+keys+are+revoked.+Call+555-0100&seal={seal}")
        assert reply.status == 200
        assert 'class="done"' not in reply.text


def test_a_form_that_is_too_large_is_refused(pages: Pages) -> None:
    for action in ACTIONS:
        assert pages.post(f"/actions/{action.name}", {"token": "x" * 100_000}).status == 404


def test_a_link_back_leads_only_to_our_pages(pages: Pages) -> None:
    for action in ACTIONS:
        for place in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
            text = pages.get(to_url(f"/actions/{action.name}", **{"from": place})).text
            assert f'href="{place}' not in text


def test_every_page_answers_in_a_project_without_anything(tmp_path: Path, open_pages: Callable[[Path], Pages]) -> None:
    shutil.copytree(TEMPLATE, tmp_path / "new", ignore=shutil.ignore_patterns("__pycache__", ".skewless"))
    pages = open_pages(tmp_path / "new")
    for page in PAGES:
        if not NAMED.search(page.path):
            reply = pages.get(page.path)
            assert reply.status == 200, (page.path, reply.text)
            assert pages.get(f"{page.path}.json" if page.path != "/" else "/index.json").status == 200


def test_every_page_answers_while_the_database_is_away(
    trained: Path, open_pages: Callable[[Path], Pages], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    pages = open_pages(trained)
    for page in PAGES:
        if not NAMED.search(page.path):
            reply = pages.get(page.path)
            assert reply.status == 200, (page.path, reply.text)
            assert page.path == "/search" or "Not known" in reply.text


def test_a_viewer_of_one_model_neither_sees_nor_changes_others(trained: Path, tmp_path: Path) -> None:
    repo = copy_project(trained, tmp_path / "p")
    with Project(repo) as project:
        project.keys.add("somebody")
        project.approve("fraud", by="ada", reason="it is good")
    with closing(Readers(repo, {"threads": 1})) as readers:
        for models, seen in (({"fraud"}, {"fraud"}), ({"other"}, set())):
            person = Viewer(name="eve", right="admin", models=frozenset(models), token=TOKEN)
            pages = Pages(
                ControlRoom(name="p", readers=readers, sign_in=OnePerson(person), hosts=frozenset({HOST})).app()
            )
            records = pages.get("/changes.json").body["records"]["value"]
            assert {record["subject"] for record in records} == seen
            for action in ACTIONS:
                reply = pages.post(f"/actions/{action.name}", {"token": TOKEN, "model": "fraud"})
                assert (reply.status == 403) or ("model" in action.fields and "fraud" in models), action.name


def test_a_defect_and_an_unknown_path_have_a_page_with_the_policy(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("skewless_control_room.readers.Readers._read", fail)
    for path, status in (("/changes", 500), ("/views/a/b/c", 404), ("/nothing", 404)):
        reply = pages.get(path)
        assert reply.status == status
        assert "secret detail" not in reply.text
        assert reply.headers["content-security-policy"] == HEADERS["content-security-policy"]


def test_no_page_names_a_model_to_a_viewer_of_another(place: Sandbox) -> None:
    repo, project = place.repo, place.project
    project.keys.add("somebody")
    place.wait(60)
    place.predict(ask(4))
    ledger = Ledger(project.state)
    ledger.begin_term(1, "first", NOW)
    for job in (f"drift {MODEL}", "materialize"):
        ledger.start(Run(id=RunId(job=job, tick_us=NOW), cause="due", token=1, started_us=NOW, inputs={}))
    check_drift(project, MODEL)
    named = re.compile(r"(?<![\w-])fraud(?![\w-])")  # the service fraud_features is no secret
    with closing(Readers(repo, {"threads": 1})) as readers:
        everybody, limited = (
            Pages(ControlRoom(name="p", readers=readers, sign_in=OnePerson(person), hosts=frozenset({HOST})).app())
            for person in (
                Viewer(name="ada", right="admin", token=TOKEN),
                Viewer(name="eve", right="admin", models=frozenset({"other"}), token=TOKEN),
            )
        )
        waiting, seen, naming = ["/", "/search?q=f"], {"/", "/search?q=f"}, set[str]()
        read: Counter[str] = Counter()
        while waiting:
            path = waiting.pop(0)
            page = next((page.path for page in PAGES if matches(page.path, path)), "")
            read[page] += 1
            if not page or read[page] > MOST_OF_A_PAGE:
                continue
            text = everybody.get(path).text
            naming |= {page} if named.search(text) else set()
            links = {unescape(link) for link in re.findall(r'href="(/[^"#]*)', text)} - seen
            waiting += sorted(links)
            seen |= links
            statuses = set[int]()
            for same in {path, path if path.partition("?")[0].endswith(".json") else twin(path)}:
                reply = limited.get(same)
                statuses.add(reply.status)
                if reply.status == 200 and named.search(same):
                    # The page repeats what was asked, and is otherwise that of a model that does not exist.
                    absent = limited.get(named.sub("absent", same)).text.replace("absent", "fraud")
                    assert re.sub(r"\d+", "", reply.text) == re.sub(r"\d+", "", absent), same
                elif reply.status == 200:
                    assert not named.search(reply.text), same
            assert len(statuses) == 1, path
        assert read.keys() >= {page.path for page in PAGES}
        assert len(naming) > len(PAGES) // 2
