"""The command line. A command imports its libraries when it runs, so help is instant."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from skewless import __version__
from skewless.commands.all_commands import COMMANDS, GROUPS, flatten, group_with, plugin_commands, sections_of
from skewless.commands.command import Command, CommandGroup
from skewless.contract.errors import DefinitionError

_YOUNG_OBJECTS = 50_000  # between two looks at the youngest objects, a few MB


def create_app(plugins: Sequence[Command | CommandGroup] = ()) -> typer.Typer:
    """Return the command line with all commands, those of plug-ins behind our own."""
    commands = [*COMMANDS, *flatten(plugins)]
    app = _group(
        "skewless",
        "Serve tree models from a feature store, with training and serving features equal bit for bit.",
        group_with(sections_of(commands)),
    )
    texts = GROUPS | {entry.word: entry.text for entry in plugins if isinstance(entry, CommandGroup)}
    groups = {name: _group(name, text, TyperGroup) for name, text in texts.items()}
    app.callback(epilog="Start with: skewless init my-project. Each command has a --help with an example.")(_options)
    for group in groups.values():
        app.add_typer(group)
    for command in commands:
        group_name, _, word = command.name.rpartition(" ")
        parent = groups[group_name] if group_name else app
        parent.command(word, cls=command.kind, short_help=command.short, epilog=command.epilog)(command.run)
    return app


def _group(name: str, text: str, kind: type[TyperGroup]) -> typer.Typer:
    # Without rich markup, help is plain text: it costs no import of rich.
    return typer.Typer(
        name=name,
        help=text,
        cls=kind,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def main() -> None:
    """Run the command line and exit with the code of ``skewless.contract.errors``."""
    # Imports make most objects of a short command, and keep them: looking for garbage among them is a tenth of its
    # time. `open_session` enables the collector for all other commands, which import Feast and Great Expectations:
    # by default it would look through all objects a dozen times meanwhile.
    gc.disable()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    try:
        plugins = plugin_commands(sys.argv[1:])
    except DefinitionError as error:
        from skewless.commands.output import sentence

        typer.echo(sentence(error), err=True)
        sys.exit(error.exit_code)
    create_app(plugins)(prog_name="skewless")


def _show_version(is_requested: bool) -> None:  # noqa: FBT001 - called by typer
    if is_requested:
        typer.echo(__version__)
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")]


def _options(*, version: _Version = False) -> None:
    """Do nothing: each option of the program itself has a callback."""


if __name__ == "__main__":
    main()
