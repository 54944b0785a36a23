"""The state of the project: freshness, parity and replay, alerts, runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from skewless.contract.plan import View
from skewless.operations.report.blocks import Block, Paragraph, TableBlock, missing
from skewless.operations.report.cells import NONE, duration, figures, time

if TYPE_CHECKING:
    from skewless.contract.windows.view import WindowView
    from skewless.infra.jobs.run import Run
    from skewless.workspace import Workspace

_MOST_RUNS, _MOST_ALERTS, _LONGEST_RESULT = 25, 20, 160


def freshness(project: Workspace) -> Iterator[Block]:
    """Yield the age of the latest accepted row of each view, with its declared limit."""
    ledger, now = project.views.ledger, project.clock.now_us()
    rows, marked = [], set[int]()
    for i, view in enumerate(project.applied.plan.all_views):
        latest = _latest_event(project, view)
        age = None if latest is None else now - latest
        limit = view.freshness_us or None
        if age is not None and limit is not None and age > limit:
            marked.add(i)
        last_end_us = ledger.last_end_us(view.partition) if isinstance(view, View) else None
        rows.append((view.name, time(latest), duration(age), duration(limit), time(last_end_us)))
    columns = ("view", "latest row", "age", "freshness limit", "last run")
    table = TableBlock(title="", columns=columns, rows=rows, marked=frozenset(marked))
    yield table if rows else missing("No view is materialized.")


def _latest_event(project: Workspace, view: View | WindowView) -> int | None:
    from skewless.infra.offline.log_parts import latest_event_us

    if isinstance(view, View):
        return latest_event_us(project.connection, project.views.log(view).files())
    files = [file for part in project.views.log_partitions(view) for file in part.files]
    return latest_event_us(project.connection, files)


def proof(project: Workspace) -> Iterator[Block]:
    """Yield the last verdicts of parity and replay."""
    from skewless.infra.verdicts.last_verdicts import read_last_parity

    yield _replay_note(project)
    items = list(read_last_parity(project.state).values())
    if not items:
        yield missing("The project has no parity run yet: run `skewless parity`.")
        return
    rows = [(item.view, time(item.at_us), f"{item.compared:,}", f"{item.mismatches:,}") for item in items]
    marked = frozenset(i for i, item in enumerate(items) if item.mismatches)
    good = "Parity: the online store and the log are equal, bit for bit."
    yield Paragraph(text="Parity found mismatches.", tone="bad") if marked else Paragraph(text=good, tone="good")
    columns = ("view", "time", "compared", "mismatches")
    yield TableBlock(title="Parity", columns=columns, rows=rows, marked=marked)


def _replay_note(project: Workspace) -> Paragraph:
    from skewless.operations.runs import Runs

    runs = [run for run in Runs(project).list("replay", limit=5) if run.ended_us is not None]
    if not runs:
        return missing("The project has no scheduled replay yet: run `skewless replay`.")
    last = runs[-1]
    lines = last.outputs.get("lines")
    text = lines[0] if isinstance(lines, list) and lines else last.error or _result(last.outputs)
    is_good = last.state == "done" and last.outputs.get("ok", True)
    return Paragraph(text=f"Replay of {time(last.ended_us)}: {text}", tone="good" if is_good else "bad")


def checks(project: Workspace) -> Iterator[Block]:
    """Yield the link to the last recorded validation."""
    from skewless.validation.data_docs import INDEX, data_docs_folder

    index = data_docs_folder(project.state) / INDEX
    if index.exists():
        yield Paragraph(text="Data Docs of the last validation", link=index.resolve().as_uri())
    else:
        yield missing(
            "The project has no Data Docs yet: the scheduled validation and `skewless validate --record` write them."
        )


def alerts(project: Workspace) -> Iterator[Block]:
    """Yield open alerts, then the latest resolved alerts."""
    from skewless.infra.alerts.alerts import Alerts

    with Alerts(project.state) as store:
        records = store.records()
    latest = sorted(records, key=lambda item: (not item.is_open, -item.since_us))[:_MOST_ALERTS]
    rows = [
        (
            *(item.alert.name, item.alert.subject, time(item.since_us)),
            *("open" if item.is_open else f"resolved {time(item.resolved_at_us)}", item.alert.message),
        )
        for item in latest
    ]
    columns = ("alert", "subject", "since", "state", "message")
    marked = frozenset(i for i, item in enumerate(latest) if item.is_open)
    table = TableBlock(title="", columns=columns, rows=rows, marked=marked)
    yield table if rows else Paragraph(text="The project has no alerts.", tone="good")


def runs(project: Workspace) -> Iterator[Block]:
    """Yield the latest runs of the scheduler, the latest first."""
    from skewless.operations.runs import Runs

    latest = Runs(project).list(limit=_MOST_RUNS)[::-1]
    marked = frozenset(i for i, run in enumerate(latest) if run.error)
    columns = ("time", "job", "cause", "state", "took", "result")
    table = TableBlock(title="", columns=columns, rows=[_run_row(run) for run in latest], marked=marked)
    yield table if latest else missing("The project has no scheduled runs yet.")


def _run_row(run: Run) -> tuple[str, ...]:
    took = NONE if run.seconds is None else duration(round(run.seconds * 1e6))
    return time(run.started_us), run.id.job, run.cause, run.state, took, run.error or _result(run.outputs)


def _result(outputs: Mapping[str, Any]) -> str:
    text = figures({name: value for name, value in outputs.items() if not isinstance(value, list)})
    return text if len(text) <= _LONGEST_RESULT else f"{text[:_LONGEST_RESULT]} ..."
