"""Finds the page about a prediction, an entity, a view, a model or a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skewless.contract.errors import SkewlessError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.platform.jobs.run import RunId
from skewless.project import Project
from skewless_control_room.page import Page, Query
from skewless_control_room.render import to_url

_MOST = 50


@dataclass(frozen=True, kw_only=True)
class Hit(PlainRecord):
    """A page that may be meant.

    Args:
        kind: ``model``, ``view``, ``run``, ``prediction`` or ``entity``.
        path: of the page.
    """

    kind: str
    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class FoundPages(PlainRecord):
    """The answer.

    Args:
        text: that was searched.
        hits: at most 50: names that contain the text, then what the text itself could be.
        problems: what could not be searched, in sentences.
    """

    text: str
    hits: list[Hit]
    problems: list[str]


def search(project: Project, query: Query) -> FoundPages:
    """Return the pages that a text may mean; the pages themselves say whether a prediction or entity exists."""
    text = query.text("q").strip()
    hits: list[Hit] = []
    problems: list[str] = []
    finders: tuple[Callable[[Project, Query, str], Iterator[Hit]], ...] = (_models, _views, _runs, _others)
    for find in finders if text else ():
        try:
            hits += find(project, query, text)
        except SkewlessError as error:
            problems.append(f"{error.thing}: {error.problem}")
    return FoundPages(text=text, hits=hits[:_MOST], problems=problems)


def _models(project: Project, query: Query, text: str) -> Iterator[Hit]:
    for name in project.packages.list_models():
        if text.lower() in name.lower() and (query.models is None or name in query.models):
            yield Hit(kind="model", name=name, path=to_url(f"/models/{name}"))


def _views(project: Project, _: Query, text: str) -> Iterator[Hit]:
    for view in project.applied.plan.all_views:
        if text.lower() in view.name.lower():
            yield Hit(kind="view", name=view.name, path=to_url(f"/views/{view.name}"))


def _runs(_project: Project, _: Query, text: str) -> Iterator[Hit]:
    try:
        run = RunId.parse(text)
    except SkewlessError:
        return
    yield Hit(kind="run", name=str(run), path=to_url(f"/runs/{run}"))


def _others(project: Project, _: Query, text: str) -> Iterator[Hit]:
    if text.isprintable() and " " not in text:
        yield Hit(kind="prediction", name=text, path=to_url(f"/predictions/{text}"))
    for column in project.applied.plan.join_keys:
        yield Hit(
            kind="entity",
            name=f"{column.name} = {text}",
            path=to_url(f"/entities/{column.name}", **{column.name: text}),
        )


PAGE = Page(path="/search", question="Find", template="search.html", read=search, is_personal=True)
