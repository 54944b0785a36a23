"""``skewless demo``: a complete example on the data of a project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output

Drift = Annotated[bool, typer.Option("--drift", help="Run months with drift and faults instead.")]
Days = Annotated[int, typer.Option("--days", metavar="N", min=1, help="With --drift: the number of days.")]
After = Annotated[
    int, typer.Option("--after", metavar="N", min=6, help="With --drift: weeks of flights before the first day.")
]


def demo(
    context: typer.Context,
    *,
    repo: Repo = Path(),
    drift: Drift = False,
    days: Days = 42,
    after: After = 21,
    as_json: Json = False,
) -> None:
    """Run everything once, from source files to served, replayed and retrained models.

    The last line is one JSON object with the facts.
    """
    with command_output(as_json=as_json) as output:
        # The stages are shown on stderr; stdout gets the facts, with or without --json.
        folder = open_project(output, repo).repo
        facts = _run_story(context, folder, days, after) if drift else _run_tour(folder)
        replace(output, as_json=True).show(facts)


def _run_tour(repo: Path) -> dict[str, Any]:
    from skewless.demo import run_demo

    return run_demo(repo)


def _run_story(context: typer.Context, repo: Path, days: int, after: int) -> dict[str, Any]:
    from skewless.commands.scheduler import invoke_in_process
    from skewless.demo.story import run_story

    command: Any = context.find_root().command
    return run_story(repo, invoke_in_process(command), days=days, after=after)
