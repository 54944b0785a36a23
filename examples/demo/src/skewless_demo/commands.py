"""The command ``demo``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from skewless.commands.command import command, option
from skewless.commands.operate import invoke_in_process
from skewless.commands.output import Session

Drift = Annotated[bool, option("--drift", "Run months with drift and faults instead.")]
Days = Annotated[int, option("--days N", "With --drift: the number of days.", min=1)]
After = Annotated[int, option("--after N", "With --drift: weeks of flights before the first day.", min=6)]


@command(
    "Run a complete example on flight data.", "--repo feature_repo", "--drift --repo feature_repo", section="Operate"
)
def demo(session: Session, context: typer.Context, *, drift: Drift = False, days: Days = 42, after: After = 21) -> None:
    """Run everything once, from source files to served, replayed and retrained models.

    The last line is one JSON object with the facts.
    """
    repo = session.project.repo
    if drift:
        from skewless_demo.story import run_story

        facts = run_story(repo, invoke_in_process(context.find_root().command), days=days, after=after)
    else:
        from skewless_demo.demo import run_demo

        facts = run_demo(repo)
    # The stages are shown on stderr; stdout gets the facts, with or without --json.
    replace(session, as_json=True).show(facts)
