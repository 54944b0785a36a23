"""The frame of every command: its help, its examples, the options that commands share, and its project."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec

import typer
from typer.core import TyperCommand

from skewless.commands.output import Session, open_session
from skewless.contract.clock import parse_time
from skewless.contract.errors import DefinitionError, GateError, RequestError

P = ParamSpec("P")
UNCHANGED = "nothing was changed"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def option(words: str, text: str, **limits: Any) -> Any:  # noqa: ANN401 - of typer
    """Return an option of a command.

    Args:
        words: the option and the name of its value, as ``--port PORT``; without a value it is a switch.
        text: its help.
        limits: ``min`` and ``max`` of a number.
    """
    name, _, metavar = words.partition(" ")
    return typer.Option(name, metavar=metavar or None, help=text, **limits)


def argument(name: str, text: str) -> Any:  # noqa: ANN401 - of typer
    """Return a positional argument of a command, by its name in the help."""
    return typer.Argument(metavar=name, help=text)


DryRun = Annotated[bool, option("--dry-run", "Show what would change, and change nothing.")]
Model = Annotated[str | None, argument("MODEL", "Name of a model; default: the only one, or all models.")]
ModelName = Annotated[str, argument("MODEL", "Name of a model.")]
VersionName = Annotated[str | None, argument("VERSION", "For example 000003; default: the latest.")]
OnlyModel = Annotated[str | None, argument("MODEL", "Name of a model; default: the only one.")]
TrainedModels = Annotated[list[str] | None, argument("MODEL", "Models; default: all trained models.")]
PlannedModels = Annotated[list[str] | None, argument("MODEL", "Models; default: all of the plan.")]
Views = Annotated[list[str] | None, argument("VIEW", "Views of any kind; default: all.")]
Seed = Annotated[int, option("--seed S", "Seed of the sample.", min=0)]
_Repo = Annotated[Path, option("--repo DIR", "The project's folder.")]
_Json = Annotated[bool, option("--json", "Print one JSON object on stdout and nothing else.")]
_Engine = Annotated[
    Literal["processes", "ray", "spark"] | None, option("--engine", "Engine of large work; default: setting 'engine'.")
]
# The options that every command has, with their defaults.
_FRAME: dict[str, tuple[Any, object]] = {"repo": (_Repo, Path()), "as_json": (_Json, False)}


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        name: the words that a user types: a word, or a group and a word.
        short: a sentence for the list of commands.
        examples: arguments that its help shows.
        run: what typer calls; its docstring is the help.
        kind: the class that writes its help.
        section: of the list of commands that shows a plug-in's command; those of skewless have theirs already.
    """

    name: str
    short: str
    examples: tuple[str, ...]
    run: Callable[..., None]
    kind: type[TyperCommand]
    section: str = ""

    @property
    def epilog(self) -> str:
        """Return the examples, one per line; the mark keeps click from joining the lines."""
        lines = [f"  $ skewless {self.name} {words}".rstrip() for words in self.examples]
        return "\n".join(("\b", "Example:", *lines))


@dataclass(frozen=True)
class CommandGroup:
    """Several commands of a plug-in under one word, registered as one entry point with this word.

    Args:
        word: the first word of their names.
        text: the help of the word.
        commands: in the order of the help.
    """

    word: str
    text: str
    commands: tuple[Command, ...]


def command(
    short: str,
    *examples: str,
    name: str = "",
    kind: type[TyperCommand] = TyperCommand,
    section: str = "",
    has_engine: bool = False,
    is_short: bool = False,
    log_level: str = "warning",
) -> Callable[[Callable[Concatenate[Session, P], None]], Command]:
    """Return a decorator that makes a command of a function; the command also has ``--repo`` and ``--json``.

    The function gets a ``Session`` and its own options.

    Args:
        short: a sentence for the list of commands.
        examples: arguments that its help shows.
        name: the words that a user types; empty: the name of the function.
        kind, section: as ``Command``.
        has_engine: whether it also has ``--engine``, because its work may be large.
        is_short, log_level: as ``open_session``.
    """
    shared = {"engine": (_Engine, None), **_FRAME} if has_engine else _FRAME

    def decorate(function: Callable[Concatenate[Session, P], None]) -> Command:
        @functools.wraps(function)
        # The options of the function are of any type.
        def run(*, repo: Path, as_json: bool, engine: str | None = None, **options: Any) -> None:  # noqa: ANN401
            with open_session(repo, as_json=as_json, engine=engine, is_short=is_short, log_level=log_level) as session:
                function(session, **options)  # type: ignore[call-arg]  # typer calls it by these names

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        frame = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for option, (kind, default) in shared.items()
        ]
        # Typer reads the options from here.
        signature = inspect.Signature([*own, *frame])
        vars(run)["__signature__"] = signature
        run.__annotations__ = {option: item.annotation for option, item in signature.parameters.items()}
        return Command(name or function.__name__, short, examples, run, kind, section)

    return decorate


def fail_if(is_failed: bool) -> None:  # noqa: FBT001 - reads as a sentence
    """End the command with the exit code of a closed gate, if a check has failed."""
    if is_failed:
        raise typer.Exit(GateError.exit_code)


def time_option(option: str, text: str) -> int:
    """Return the time of an option, in microseconds since 1970.

    Raises:
        DefinitionError: the text is not a time.
    """
    parsed = parse_time(text)
    if parsed is None:
        fix = "write a date, or a date and a time: 2027-01-01T12:00:00Z"
        raise DefinitionError(f"option {option}", "is not a time", value=text, fix=fix)
    return parsed[0]


def parse_length(text: str) -> int:
    """Return a duration in microseconds.

    Raises:
        RequestError: the text is not a duration, or it is zero.

    >>> parse_length("2h")
    7200000000
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", text)
    if match is None:
        fix = "give a number with s, m, h, d or w, such as 7d"
        raise RequestError("duration", "is not valid", value=text, fix=fix)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) // timedelta(microseconds=1)
