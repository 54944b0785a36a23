"""The sections about the project: freshness, parity and replay, alerts, runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skewless.contract.plan import View
from skewless.operations.report.blocks import Paragraph, Section, TableBlock
from skewless.operations.report.cells import NONE, figures, length, moment

if TYPE_CHECKING:
    from skewless.contract.windows.view import WindowView
    from skewless.infra.jobs.run import Run
    from skewless.workspace import Workspace

_MOST_RUNS, _MOST_ALERTS, _LONGEST_RESULT = 25, 20, 160


def freshness_section(project: Workspace) -> Section:
    """Return how old the newest accepted rows of each view are, against what was declared."""
    runs, now = project.views.ledger.runs(), project.clock.now_us()
    rows, marked = [], set[int]()
    for i, view in enumerate(project.applied.plan.all_views):
        newest = _newest_event(project, view)
        age = None if newest is None else now - newest
        limit = view.freshness_us or None
        if age is not None and limit is not None and age > limit:
            marked.add(i)
        partition = view.partition if isinstance(view, View) else None
        ends = [run.ended_us for run in runs if run.ended_us is not None and partition in run.covers]
        rows.append((view.name, moment(newest), length(age), length(limit), moment(max(ends, default=None))))
    if not rows:
        return Section(title="Freshness", blocks=[Paragraph(text="No view is materialised.", tone="missing")])
    columns = ("view", "newest row", "age", "freshness limit", "last run")
    return Section(
        title="Freshness", blocks=[TableBlock(title="", columns=columns, rows=rows, marked=frozenset(marked))]
    )


def _newest_event(project: Workspace, view: View | WindowView) -> int | None:
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
        blocks.append(Paragraph(text="Parity was never run: run `skewless parity`.", tone="missing"))
        return Section(title="Proof: parity and replay", blocks=blocks)
    found = list(verdicts.values())
    rows = [(item.view, moment(item.at_us), f"{item.compared:,}", f"{item.mismatches:,}") for item in found]
    marked = frozenset(i for i, item in enumerate(found) if item.mismatches)
    good = "Parity: online values are what the log says, bit for bit."
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
        return Paragraph(text="Replay was never run by the scheduler: run `skewless replay`.", tone="missing")
    last = runs[-1]
    lines = last.outputs.get("lines")
    text = lines[0] if isinstance(lines, list) and lines else last.error or _result(last.outputs)
    is_good = last.state == "done" and last.outputs.get("ok", True)
    return Paragraph(text=f"Replay of {moment(last.ended_us)}: {text}", tone="good" if is_good else "bad")


def checks_section(project: Workspace) -> Section:
    """Return where the last recorded validation is shown."""
    from skewless.validation.data_docs import INDEX, data_docs_folder

    index = data_docs_folder(project.state) / INDEX
    if not index.exists():
        nothing = "No Data Docs yet: the scheduler's validation writes them, and `skewless validate --record`."
        return Section(title="Data checks", blocks=[Paragraph(text=nothing, tone="missing")])
    return Section(
        title="Data checks", blocks=[Paragraph(text="Data Docs of the last validation", link=index.resolve().as_uri())]
    )


def alerts_section(project: Workspace) -> Section:
    """Return the alerts that are open, then the newest of those that are over."""
    from skewless.infra.alerts.alerts import Alerts

    with Alerts(project.state) as alerts:
        kept = alerts.records()
    if not kept:
        return Section(title="Alerts", blocks=[Paragraph(text="There was none.", tone="good")])
    shown = sorted(kept, key=lambda item: (not item.is_open, -item.since_us))[:_MOST_ALERTS]
    rows = [
        (item.alert.name, item.alert.subject, moment(item.since_us), _over(item.resolved_at_us), item.alert.message)
        for item in shown
    ]
    columns = ("alert", "subject", "since", "state", "message")
    marked = frozenset(i for i, item in enumerate(shown) if item.is_open)
    return Section(title="Alerts", blocks=[TableBlock(title="", columns=columns, rows=rows, marked=marked)])


def _over(at_us: int | None) -> str:
    return "open" if at_us is None else f"over since {moment(at_us)}"


def runs_section(project: Workspace) -> Section:
    """Return the newest runs of the scheduler, newest first."""
    from skewless.operations.runs import Runs

    runs = Runs(project).list(limit=_MOST_RUNS)[::-1]
    if not runs:
        return Section(title="Runs", blocks=[Paragraph(text="The scheduler has run nothing yet.", tone="missing")])
    rows = [_run_row(run) for run in runs]
    marked = frozenset(i for i, run in enumerate(runs) if run.error)
    columns = ("time", "job", "cause", "state", "took", "result")
    return Section(title="Runs", blocks=[TableBlock(title="", columns=columns, rows=rows, marked=marked)])


def _run_row(run: Run) -> tuple[str, ...]:
    took = NONE if run.seconds is None else f"{run.seconds:.1f} s"
    return moment(run.started_us), run.id.job, run.cause, run.state, took, run.error or _result(run.outputs)


def _result(outputs: Mapping[str, Any]) -> str:
    text = figures({name: value for name, value in outputs.items() if not isinstance(value, list)})
    return text if len(text) <= _LONGEST_RESULT else f"{text[:_LONGEST_RESULT]} ..."
