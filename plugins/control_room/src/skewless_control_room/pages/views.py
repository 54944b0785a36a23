"""The pages of views: what each feeds, and whether it is fresh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import View
from skewless.contract.readable import length_text
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.needed_views import PLAN
from skewless.infra.log.catalog import source_logs
from skewless.infra.log.daily_counts import DAY_US
from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity, read_last
from skewless.project import Project
from skewless_control_room.page import Page, Part, Query, Unknown, read_part
from skewless_control_room.plots import TimeCurve
from skewless_control_room.refused import DayCount, days_of
from skewless_control_room.view_changes import (
    DefinitionHistory,
    ViewDrift,
    definition_lines,
    read_history,
    read_view_drift,
)
from skewless_control_room.view_facts import (
    ViewAge,
    ViewDelay,
    ViewReader,
    ViewStore,
    ViewSummary,
    find_view,
    judge_age,
    list_readers,
    list_views,
    read_view_delay,
    read_view_store,
    try_watermarks,
)

_MOST_VIEWS, _MOST_MODELS, _MOST_LINES = 200, 10, 400
_MOST_NUMBER, _LONGEST_GAP = 2**53, 31


@dataclass(frozen=True, kw_only=True)
class ViewList(PlainRecord):
    """The views of a project.

    Args:
        shown: in the order of their names.
        total: number of all views.
        states: number of shown views by state of freshness.
        problem: why watermarks are unknown; None: they are known.
        next: name after which the next page begins; None: this is the last one.
    """

    shown: list[ViewSummary]
    total: int
    states: dict[str, int]
    problem: str | None
    next: str | None


@dataclass(frozen=True, kw_only=True)
class Views(PlainRecord):
    """The answer of the page of all views."""

    views: Part[ViewList]


def read_views(project: Project, query: Query) -> Views:
    """Return the views with their freshness, 200 at a time."""
    after = query.text("after")
    return Views(views=read_part(lambda: _list(project, after)))


def _list(project: Project, after: str) -> ViewList:
    found, total, problem = list_views(project, most=_MOST_VIEWS + 1, after=after)
    shown = found[:_MOST_VIEWS]
    states = [item.age.state for item in shown]
    return ViewList(
        shown=shown,
        total=total,
        states={state: states.count(state) for state in ("late", "unknown", "fresh", "no limit")},
        problem=problem,
        next=shown[-1].view if len(found) > len(shown) else None,
    )


@dataclass(frozen=True, kw_only=True)
class Days(PlainRecord):
    """The rows of a view's log by UTC day.

    Args:
        log: ``batch/VIEW-HASH``, or ``events/SOURCE`` of a windowed view, whose events other views share.
        days: without gaps, oldest first; empty: none were recorded.
    """

    log: str
    days: list[DayCount]

    def curves(self, *names: str) -> list[TimeCurve]:
        """Return the counts of some names over the days."""
        times = [day.day_us for day in self.days]
        return [TimeCurve(name=name, times=times, values=[getattr(day, name) for day in self.days]) for name in names]


@dataclass(frozen=True, kw_only=True)
class Definition(PlainRecord):
    """The definition of a view.

    Args:
        keys, features: names with types; a feature of a windowed view also with its function, column and window.
        limits: durations that it declares, by name.
        lines: all of it as JSON, at most 400 lines.
    """

    source: str
    keys: dict[str, str]
    features: dict[str, str]
    limits: dict[str, str]
    lines: list[str]


@dataclass(frozen=True, kw_only=True)
class ViewAnswer(PlainRecord):
    """The answer of the page of one view.

    Args:
        name: as in the path; with ``@HASH`` if only models need this version.
        kind: None: unknown.
        drift: of the models that read it and that the viewer may see, at most ten.
    """

    name: str
    kind: str | None
    age: Part[ViewAge]
    store: Part[ViewStore]
    delay: Part[ViewDelay]
    days: Part[Days]
    drift: Part[list[ViewDrift]]
    parity: Part[LastParity | None]
    readers: Part[list[ViewReader]]
    definition: Part[Definition]
    history: Part[DefinitionHistory]


def read_view(project: Project, query: Query) -> ViewAnswer:
    """Return the facts about a view.

    Raises:
        RequestError: the project has no such view.
    """
    name = query.path["view"]
    before = query.number("before", 0, most=_MOST_NUMBER) or None
    history = read_part(lambda: read_history(project, name.partition("@")[0], before=before))
    try:
        view = find_view(project.needed, name)
    except RequestError:
        raise
    except SkewlessError as error:
        lost = Unknown(unknown=f"{error.thing}: {error.problem}", fix=error.fix)
        parts: dict[str, Any] = dict.fromkeys(
            ("age", "store", "delay", "days", "drift", "parity", "readers", "definition"), lost
        )
        return ViewAnswer(name=name, kind=None, history=history, **parts)
    return ViewAnswer(
        name=name,
        kind="latest values" if isinstance(view, View) else "windowed",
        age=read_part(lambda: _age(project, name, view)),
        store=read_part(lambda: _store(project, view, query)),
        delay=read_part(lambda: read_view_delay(project, view)),
        days=read_part(lambda: _days(project, view)),
        drift=read_part(lambda: list(_drift(project, view, query))),
        parity=read_part(lambda: _parity(project, name, view)),
        readers=read_part(lambda: _readers(project, view, query)),
        definition=read_part(lambda: _definition(view)),
        history=history,
    )


def _age(project: Project, name: str, view: View | WindowView) -> ViewAge:
    watermarks, _ = try_watermarks(project, [view])
    check = read_last(project.state, Freshness).get(name)
    return judge_age(view, check, watermarks.get(view.hash), project.clock.now_us())


def _store(project: Project, view: View | WindowView, query: Query) -> ViewStore:
    """Return the state of a view, with the versions of the models that the reader may see."""
    store = read_view_store(project, view)
    if query.models is None:
        return store
    seen = [name for name in store.needed_by if name == PLAN or name.rpartition(" ")[0] in query.models]
    return replace(store, needed_by=seen)


def _days(project: Project, view: View | WindowView) -> Days:
    log = view.partition if isinstance(view, View) else source_logs(view.source)
    return Days(log=log, days=list(_fill_gaps(days_of(project, log))))


def _fill_gaps(days: Sequence[DayCount]) -> Iterator[DayCount]:
    """Yield days with a day without rows in each gap; a gap of more than a month stays."""
    for day, following in zip_longest(days, days[1:]):
        yield day
        gap = 0 if following is None else (following.day_us - day.day_us) // DAY_US
        for number in range(1, gap if gap <= _LONGEST_GAP else 0):
            yield DayCount(day_us=day.day_us + number * DAY_US, accepted=0, late=0, rejected=0, duplicates=0)


def _drift(project: Project, view: View | WindowView, query: Query) -> Iterator[ViewDrift]:
    models = {model for reader in _readers(project, view, query) for model in reader.models}
    for model in sorted(models)[:_MOST_MODELS]:
        verdict = read_view_drift(project, view, model)
        if verdict is not None and verdict.features:
            yield verdict


def _parity(project: Project, name: str, view: View | WindowView) -> LastParity | None:
    verdict = read_last(project.state, LastParity).get(name)
    return verdict if verdict is not None and verdict.hash == view.hash else None


def _readers(project: Project, view: View | WindowView, query: Query) -> list[ViewReader]:
    return [
        ViewReader(
            service=reader.service,
            features=reader.features,
            models=[model for model in reader.models if query.models is None or model in query.models],
        )
        for reader in list_readers(project, view)
    ]


def _definition(view: View | WindowView) -> Definition:
    limits = {"freshness": view.freshness_us, "largest age": view.max_age_us}
    features = {column.name: str(column.dtype) for column in view.features}
    if isinstance(view, View):
        limits |= {"time to live": view.ttl_us, "declared delay": view.delay_us}
    else:
        for item in view.aggregates:
            window, hop = length_text(item.window_us), length_text(item.hop_us)
            features[item.name] = f"{item.text} over {window}, in steps of {hop}"
    return Definition(
        source=view.source.path if isinstance(view, View) else view.source,
        keys={column.name: str(column.dtype) for column in view.keys},
        features=features,
        limits={name: length_text(us) if us else "none" for name, us in limits.items()},
        lines=definition_lines(view)[:_MOST_LINES],
    )


PAGE = Page(
    path="/views",
    question="Which views are there, and are they fresh?",
    template="views.html",
    read=read_views,
    menu="Views",
    live_s=10,
)
VIEW_PAGE = Page(
    path="/views/{view}",
    question="Which models does view {view} feed, and is it fresh?",
    template="view.html",
    read=read_view,
    live_s=10,
)
