"""The options that commands share, and the project that ``--repo`` names."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skewless.contract.clock import parse_time
from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from skewless.commands.output import Output
    from skewless.project import Project

Repo = Annotated[Path, typer.Option("--repo", metavar="DIR", help="The project's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Model = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Name of a model; default: the only one, or all models.")
]
Engine = Annotated[
    Literal["processes", "ray", "spark"] | None,
    typer.Option("--engine", help="Engine of large work; default: setting 'engine'."),
]
UNCHANGED = "nothing was changed"


def open_project(output: Output, repo: Path, **options: Any) -> Project:  # noqa: ANN401 - checked by the settings
    """Return the project of a folder; it is closed when the command ends.

    Args:
        options: values that override settings; None: no override.

    Raises:
        PlaceError: the folder has no project.
        DefinitionError: a setting is invalid.
    """
    from skewless.project import Project

    overrides = {name: value for name, value in options.items() if value is not None}
    return output.exits.enter_context(closing(Project(repo, **overrides)))


def time_option(name: str, text: str) -> int:
    """Return the time of an option, in microseconds since 1970.

    Raises:
        DefinitionError: the text is not a time.
    """
    parsed = parse_time(text)
    if parsed is None:
        fix = "write a date, or a date and a time: 2027-01-01T12:00:00Z"
        raise DefinitionError(f"option {name}", "is not a time", value=text, fix=fix)
    return parsed[0]
