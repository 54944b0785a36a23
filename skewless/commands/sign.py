"""``skewless sign``: signatures for packages from before packages were signed, and the key that signs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering

Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models; none: all that were trained.")]


def sign(models: Models = None, *, dry_run: DryRun = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Sign packages that have no signature. Servers run what is in them: sign those that you trust, and no others."""
    with answering(as_json=as_json) as output:
        report = open_project(output, repo).sign(models or (), dry_run=dry_run)
        output.answer({"dry_run": dry_run, **report.as_dict()}, *report.lines())
