"""``skewless erase``: the erasure of an entity from everything that the project has stored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import UNCHANGED, DryRun, Json, Repo, open_project
from skewless.commands.output import command_output, facts_table
from skewless.contract.errors import RequestError

Keys = Annotated[
    list[str] | None, typer.Option("--entity", metavar="KEY=VALUE", help="Value of a join key; once for each key.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Erase without a question.")]
_MEANINGS = {
    "rows": "rows of views",
    "events": "events",
    "predictions": "predictions",
    "outcomes": "outcomes",
    "online": "online rows and states",
    "built": "windowed views built again",
    "objects": "deleted files of logs",
    "waiting": "files that other processes still read",
    "digest": "digest of salt and keys",
    "salt": "salt",
}


def erase(
    *, entity: Keys = None, yes: Yes = False, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Erase an entity from logs, online store and local copies, and print a receipt. It cannot be undone."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        keys = _parse_keys(entity or ())
        if not dry_run and not yes:
            _ask(keys, as_json=as_json)
        with output.working("erasing"):
            receipt = project.erase(keys, dry_run=dry_run)
        body = receipt.as_dict()
        facts = facts_table("would be erased" if dry_run else "erased", [(_MEANINGS[n], body[n]) for n in _MEANINGS])
        output.show(body, facts, f"not covered: {'; '.join(body['not_covered'])}", *([UNCHANGED] if dry_run else []))


def _parse_keys(items: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or name in keys:
            problem = "names a key twice" if sign else "is not KEY=VALUE"
            raise RequestError(
                "option --entity", problem, value=item, fix="write --entity KEY=VALUE, once for each key"
            )
        keys[name] = value
    return keys


def _ask(keys: dict[str, str], *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise RequestError("erasure", "needs a confirmation", fix="repeat the command with --yes")
    if not typer.confirm(f"Erase {', '.join(f'{name}={value}' for name, value in keys.items())} for ever?", err=True):
        raise RequestError("erasure", "was not confirmed", fix="answer y, or give --yes")
