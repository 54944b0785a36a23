"""``skewless bootstrap``: the online states of windowed views, built from the log."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import Output, answering, table
from skewless.contract.names import check_known

if TYPE_CHECKING:
    from skewless.contract.windows.view import WindowView
    from skewless.project import Project

Views = Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Windowed views; none: all.")]


def bootstrap(views: Views = None, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Build the online states of windowed views from the log, beside those that are read, and switch to them."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        if dry_run:
            _foresee(project, views, output)
        else:
            _build(project, views, output)


def _build(project: Project, names: list[str] | None, output: Output) -> None:
    from skewless.infra.online.store import open_online_store

    chosen = _chosen(project, names)
    with closing(open_online_store(project.redis_url)) as store, output.progress("reading the log") as bar:
        builder = project.streams.bootstrapper(store)
        built = [asdict(builder.build(view, lambda name, done: bar(name, done, None))) for view in chosen]
    columns = ("view", "generation", "states", "events")
    output.answer({"views": built}, table("built from the log", columns, [tuple(item.values()) for item in built]))


def _chosen(project: Project, names: list[str] | None) -> list[WindowView]:
    """Return windowed views by their names, with ``@HASH`` those that only models need; none: all.

    Raises:
        RequestError: there is no such view.
    """
    needed = project.needed
    known = {needed.label(view): view for view in needed.plan.windows} | {
        view.name: needed.plan.window(view.name) for view in needed.plan.windows
    }
    for name in names or ():
        check_known("windowed view", name, known)
    return [known[name] for name in names] if names else list(needed.plan.windows)


def _foresee(project: Project, names: list[str] | None, output: Output) -> None:
    from skewless.infra.log.partitions import log_ends

    rows = []
    for view in _chosen(project, names):
        live = project.streams.generations.live(view)
        events = sum(end + 1 for end in log_ends(project.state / "log", view.source).values())
        number = None if live is None else live.number
        rows.append({"view": project.needed.label(view), "live": number, "events": events})
    shown = table("would be built", ("view", "generation now", "events"), [tuple(row.values()) for row in rows])
    output.answer({"dry_run": True, "views": rows}, shown, "nothing was changed")
