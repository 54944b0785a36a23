"""``skewless demo``: the whole walk on the project in front of you."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering

Drift = Annotated[bool, typer.Option("--drift", help="Tell the story of months with drift and faults instead.")]

Days = Annotated[int, typer.Option("--days", min=1, help="With --drift: how many days are lived through.")]
After = Annotated[int, typer.Option("--after", min=6, help="With --drift: weeks of flights before it begins.")]


def demo(
    context: typer.Context,
    *,
    repo: Repo = Path(),
    drift: Drift = False,
    days: Days = 42,
    after: After = 21,
    as_json: Json = False,
) -> None:
    """Walk from files to served, proven and retrained models; the last line is one JSON object."""
    with answering(as_json=as_json) as output:
        # The stages are shown on stderr; stdout gets the facts, whoever reads.
        place = open_project(output, repo).repo
        facts = _story(context, place, days, after) if drift else _walk(place)
        replace(output, as_json=True).answer(facts)


def _walk(repo: Path) -> dict[str, Any]:
    from skewless.demo import run_demo

    return run_demo(repo)


def _story(context: typer.Context, repo: Path, days: int, after: int) -> dict[str, Any]:
    from skewless.commands.scheduler import inside
    from skewless.demo.story import run_story

    command: Any = context.find_root().command
    return run_story(repo, inside(command), days=days, after=after)
