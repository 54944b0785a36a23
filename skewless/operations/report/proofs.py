"""The sections on the project: freshness, parity and replay, alerts, runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skewless.contract.plan import View
from skewless.operations.report.blocks import Paragraph, Section, TableBlock
from skewless.operations.report.cells import NONE, duration, figures, time

if TYPE_CHECKING:
    from skewless.contract.windows.view import WindowView
    from skewless.infra.jobs.run import Run
    from skewless.workspace import Workspace

_MOST_RUNS, _MOST_ALERTS, _LONGEST_RESULT = 25, 20, 160


def freshness_section(project: Workspace) -> Section:
    """Return the age of the latest accepted row of each view, with its declared limit."""
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
    if not rows:
        return Section(title="Freshness", blocks=[Paragraph(text="No view is materialized.", tone="missing")])
    columns = ("view", "latest row", "age", "freshness limit", "last run")
    return Section(
        title="Freshness", blocks=[TableBlock(title="", columns=columns, rows=rows, marked=frozenset(marked))]
    )


def _latest_event(project: Workspace, view: View | WindowView) -> int | None:
    from skewless.infra.offline.log_parts import latest_event_us

    if isinstance(view, View):
        return latest_event_us(project.connection, project.views.log(view).files())
    files = [file for part in project.views.log_partitions(view) for file in part.files]
    return latest_event_us(project.connection, files)


def proof_section(project: Workspace) -> Section:
    """Return the last verdicts of parity and replay."""
    from skewless.infra.verdicts.last_verdicts import read_last_parity

    verdicts = read_last_parity(project.state)
    blocks: list[Paragraph | TableBlock] = [_replay_note(project)]
    if not verdicts:
        blocks.append(Paragraph(text="The project has no parity run yet: run `skewless parity`.", tone="missing"))
        return Section(title="Proof: parity and replay", blocks=blocks)
    items = list(verdicts.values())
    rows = [(item.view, time(item.at_us), f"{item.compared:,}", f"{item.mismatches:,}") for item in items]
    marked = frozenset(i for i, item in enumerate(items) if item.mismatches)
    good = "Parity: the online store and the log are equal, bit for bit."
    blocks.append(
        Paragraph(text="Parity found mismatches.", tone="bad") if marked else Paragraph(text=good, tone="good")
    )
    columns = ("view", "time", "compared", "mismatches")
    blocks.append(TableBlock(title="Parity", columns=columns, rows=rows, marked=marked))
    return Section(title="Proof: parity and replay", blocks=blocks)


def _replay_note(project: Workspace) -> Paragraph:
    from skewless.operations.runs import Runs

    runs = [run for run in Runs(project).list("replay", limit=5) if run.ended_us is not None]
    if not runs:
        return Paragraph(text="The project has no scheduled replay yet: run `skewless replay`.", tone="missing")
    last = runs[-1]
    lines = last.outputs.get("lines")
    text = lines[0] if isinstance(lines, list) and lines else last.error or _result(last.outputs)
    is_good = last.state == "done" and last.outputs.get("ok", True)
    return Paragraph(text=f"Replay of {time(last.ended_us)}: {text}", tone="good" if is_good else "bad")


def checks_section(project: Workspace) -> Section:
    """Return the link to the last recorded validation."""
    from skewless.validation.data_docs import INDEX, data_docs_folder

    index = data_docs_folder(project.state) / INDEX
    if not index.exists():
        text = "The project has no Data Docs yet: the scheduled validation and `skewless validate --record` write them."
        return Section(title="Data checks", blocks=[Paragraph(text=text, tone="missing")])
    return Section(
        title="Data checks", blocks=[Paragraph(text="Data Docs of the last validation", link=index.resolve().as_uri())]
    )


def alerts_section(project: Workspace) -> Section:
    """Return open alerts, then the latest resolved alerts."""
    from skewless.infra.alerts.alerts import Alerts

    with Alerts(project.state) as alerts:
        records = alerts.records()
    if not records:
        return Section(title="Alerts", blocks=[Paragraph(text="The project has no alerts.", tone="good")])
    latest = sorted(records, key=lambda item: (not item.is_open, -item.since_us))[:_MOST_ALERTS]
    rows = [
        (item.alert.name, item.alert.subject, time(item.since_us), _state_text(item.resolved_at_us), item.alert.message)
        for item in latest
    ]
    columns = ("alert", "subject", "since", "state", "message")
    marked = frozenset(i for i, item in enumerate(latest) if item.is_open)
    return Section(title="Alerts", blocks=[TableBlock(title="", columns=columns, rows=rows, marked=marked)])


def _state_text(at_us: int | None) -> str:
    return "open" if at_us is None else f"resolved {time(at_us)}"


def runs_section(project: Workspace) -> Section:
    """Return the latest runs of the scheduler, the latest first."""
    from skewless.operations.runs import Runs

    runs = Runs(project).list(limit=_MOST_RUNS)[::-1]
    if not runs:
        return Section(title="Runs", blocks=[Paragraph(text="The project has no scheduled runs yet.", tone="missing")])
    rows = [_run_row(run) for run in runs]
    marked = frozenset(i for i, run in enumerate(runs) if run.error)
    columns = ("time", "job", "cause", "state", "took", "result")
    return Section(title="Runs", blocks=[TableBlock(title="", columns=columns, rows=rows, marked=marked)])


def _run_row(run: Run) -> tuple[str, ...]:
    took = NONE if run.seconds is None else duration(round(run.seconds * 1e6))
    return time(run.started_us), run.id.job, run.cause, run.state, took, run.error or _result(run.outputs)


def _result(outputs: Mapping[str, Any]) -> str:
    text = figures({name: value for name, value in outputs.items() if not isinstance(value, list)})
    return text if len(text) <= _LONGEST_RESULT else f"{text[:_LONGEST_RESULT]} ..."
