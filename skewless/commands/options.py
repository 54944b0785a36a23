"""The options that the verbs share, and the project that they name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.contract.clock import parse_time
from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from skewless.commands.output import Output
    from skewless.project import Project

Repo = Annotated[Path, typer.Option("--repo", metavar="DIR", help="The project's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
Model = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of the model; none: the only one, or all.")]


def open_project(output: Output, repo: Path) -> Project:
    """Return the project in a folder; it is closed when the verb ends.

    Raises:
        PlaceError: the folder holds no project.
        DefinitionError: a setting cannot be right.
    """
    from skewless.project import Project

    return output.until_done.enter_context(closing(Project(repo)))


def time_option(name: str, text: str) -> int:
    """Return the time that an option gives, in microseconds.

    Raises:
        DefinitionError: it is none.
    """
    found = parse_time(text)
    if found is None:
        fix = "write a date, or a date and a time: 2027-01-01T12:00:00Z"
        raise DefinitionError(f"option {name}", "is not a time", value=text, fix=fix)
    return found[0]
