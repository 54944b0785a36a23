"""All commands of the command line, by the part of the work that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from typer import BadParameter
from typer.core import TyperGroup

from skewless.commands import (
    data,
    define,
    keys,
    lists,
    operate,
    predictions,
    serve,
    state,
    train,
    watch,
)
from skewless.commands.command import Command, CommandGroup

GROUPS = {
    "keys": "Manage API keys.",
    "lists": "Manage the lists of policies.",
    "runs": "List, start, retry or cancel scheduled runs.",
}
_PARTS = {
    "Define": (define.init, define.plan, define.apply, define.validate),
    "Data": (data.materialize, data.import_events, data.stream, data.backfill, data.get, data.dataset),
    "Train": (
        *(train.train, train.promote, train.versions, train.triggers, train.sign),
        *(train.adopt, train.approve),
    ),
    "Serve": (
        *(serve.serve, serve.predict, serve.rollout, serve.rollback, serve.feedback),
        *(keys.add_key, keys.list_keys, keys.revoke_key),
        *(lists.set_list, lists.list_lists),
    ),
    "Watch": (
        *(watch.quality, watch.drift, watch.freshness, predictions.predictions, predictions.why),
        *(watch.replay, watch.parity, watch.alerts),
    ),
    "Operate": (
        *(operate.status, operate.doctor, operate.scheduler),
        *(operate.list_runs, operate.show_run, operate.start_run, operate.retry_run, operate.cancel_run),
        *(operate.housekeeping, state.erase, state.backup, state.restore, state.recover, state.bundle),
    ),
}
COMMANDS: tuple[Command, ...] = tuple(command for commands in _PARTS.values() for command in commands)
OTHER = "Other"  # section of a plug-in's command that names none


def flatten(entries: Sequence[Command | CommandGroup]) -> list[Command]:
    """Return commands, and those of groups, in their order."""
    parts = [entry.commands if isinstance(entry, CommandGroup) else (entry,) for entry in entries]
    return [command for part in parts for command in part]


def sections_of(commands: Sequence[Command] = COMMANDS) -> dict[str, list[str]]:
    """Return the first words of commands by the section of the list that shows them, each once."""
    own = {command.name: title for title, group in _PARTS.items() for command in group}
    sections: dict[str, list[str]] = {title: [] for title in _PARTS}
    for command in commands:
        names = sections.setdefault(own.get(command.name) or command.section or OTHER, [])
        word = command.name.partition(" ")[0]
        names += [] if word in names else [word]
    return sections


def plugin_commands(words: Sequence[str]) -> list[Command | CommandGroup]:
    """Return the commands of plug-ins, entry points of ``skewless.commands``, that a call needs.

    Args:
        words: of the call. Its first word names the command; where skewless itself has it, no plug-in is looked for,
            which takes the time of reading the entry points of all installed packages.

    Raises:
        DefinitionError: a plug-in cannot be imported.
    """
    word = next((word for word in words if not word.startswith("-")), "")
    if word in {command.name.partition(" ")[0] for command in COMMANDS}:
        return []
    from skewless.infra.platform.host.plugins import find_plugin, load_plugins

    if word and (command := find_plugin("skewless.commands", word)):
        return [command]
    return list(load_plugins("skewless.commands").values())


class SectionedGroup(TyperGroup):
    """A group of commands whose help lists them by section."""

    sections: Mapping[str, Sequence[str]] = MappingProxyType({})

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - of click, which typer hides
        """Run a command; an error about an option has the words of a person, not those of pydantic, typer's parser."""
        try:
            return super().invoke(ctx)
        except BadParameter as error:
            error.message = error.message.removeprefix("Value error, ").replace("Input should", "it should")
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - of click, which typer hides
        """Write each section with the names and short helps of its commands."""
        widest = max(map(len, self.commands))
        for title, names in self.sections.items():
            # Padded names align the short helps of all sections.
            rows = [
                (name.ljust(widest), str(self.commands[name].short_help or self.commands[name].help)) for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


def group_with(sections: Mapping[str, Sequence[str]]) -> type[SectionedGroup]:
    """Return the class of the program's group: typer takes a class, and gives it no arguments of ours."""

    class ProgramGroup(SectionedGroup):
        """The commands of the program."""

    ProgramGroup.sections = sections
    return ProgramGroup
