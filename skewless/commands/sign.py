"""``skewless sign``: signatures for unsigned packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import command_output

Models = Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Models; default: all trained models.")]


def sign(models: Models = None, *, dry_run: DryRun = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Sign packages that have no signature, and show the public key.

    Servers run the code of a package: sign only packages that you trust.
    """
    with command_output(as_json=as_json) as output:
        report = open_project(output, repo).sign(models or (), dry_run=dry_run)
        output.show({"dry_run": dry_run, **report.as_dict()}, *report.lines())
