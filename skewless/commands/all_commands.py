"""All commands of the command line, by the part of the work that they belong to."""

from __future__ import annotations

from typing import Any

from typer import BadParameter
from typer.core import TyperGroup

from skewless.commands import (
    capacity,
    data,
    define,
    exports,
    keys,
    lists,
    operate,
    predictions,
    serve,
    state,
    train,
    watch,
)
from skewless.commands.command import Command

GROUPS = {
    "keys": "Manage API keys.",
    "letters": "List dead letters, or send them again.",
    "lists": "Manage the lists of policies.",
    "runs": "List, start, retry or cancel scheduled runs.",
}
_PARTS = {
    "Define": (define.init, define.plan, define.apply, define.validate),
    "Data": (data.materialize, data.import_events, data.stream, data.backfill, data.get, data.dataset),
    "Train": (
        *(train.train, train.promote, train.versions, train.triggers, train.track, train.sign),
        *(train.adopt, train.approve, train.card, exports.export, exports.certify),
    ),
    "Serve": (
        *(serve.serve, serve.predict, serve.rollout, serve.rollback, serve.feedback),
        *(keys.add_key, keys.list_keys, keys.revoke_key),
        *(lists.set_list, lists.list_lists),
    ),
    "Watch": (
        *(watch.quality, watch.drift, watch.freshness, watch.importance, predictions.predictions, predictions.why),
        *(watch.replay, watch.parity, watch.alerts, watch.ui),
    ),
    "Operate": (
        *(operate.status, operate.list_letters, operate.send_letters, operate.doctor),
        *(capacity.capacity, operate.scheduler),
        *(operate.list_runs, operate.show_run, operate.start_run, operate.retry_run, operate.cancel_run),
        *(operate.housekeeping, state.erase, state.backup, state.restore, state.recover, state.upgrade, state.bundle),
        operate.demo,
    ),
}
COMMANDS: tuple[Command, ...] = tuple(command for commands in _PARTS.values() for command in commands)
# The first words of the commands of each part, once.
SECTIONS = {
    title: tuple(dict.fromkeys(command.name.partition(" ")[0] for command in commands))
    for title, commands in _PARTS.items()
}


class SectionedGroup(TyperGroup):
    """A group of commands whose help lists them by section."""

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
        for title, names in SECTIONS.items():
            # Padded names align the short helps of all sections.
            rows = [
                (name.ljust(widest), str(self.commands[name].short_help or self.commands[name].help)) for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)
