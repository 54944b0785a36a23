"""``skewless sign``: signatures for unsigned packages, and the removal of trusted keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import UNCHANGED, DryRun, Json, Repo, open_project
from skewless.commands.output import command_output

Models = Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Models; default: all trained models.")]


RemoveKey = Annotated[
    str | None,
    typer.Option("--remove-key", metavar="KEY", help="Trust a public key no longer; packages it signed are rejected."),
]


def sign(
    models: Models = None,
    *,
    remove_key: RemoveKey = None,
    dry_run: DryRun = False,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Sign packages that have no signature, and show the public key; or remove a trusted key.

    Servers run the code of a package: sign only packages that you trust.
    """
    with command_output(as_json=as_json) as output:
        report = open_project(output, repo).sign(models or (), remove_key=remove_key, dry_run=dry_run)
        unchanged = (UNCHANGED,) if dry_run and remove_key is not None else ()
        output.show({"dry_run": dry_run, **report.as_dict()}, *report.lines(), *unchanged)
