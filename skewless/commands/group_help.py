"""The group of all commands: its help has a section for each part of the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer import BadParameter
from typer.core import TyperGroup

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Define": ("init", "plan", "apply", "validate"),
    "Data": ("materialize", "import", "stream", "backfill", "get", "dataset"),
    "Train": ("train", "promote", "versions", "triggers", "track", "sign"),
    "Serve": ("serve", "predict", "rollout", "rollback", "feedback", "keys"),
    "Watch": ("quality", "drift", "freshness", "importance", "why", "replay", "parity", "alerts", "report"),
    "Operate": (
        "status",
        "doctor",
        "scheduler",
        "runs",
        "housekeeping",
        "erase",
        "backup",
        "restore",
        "recover",
        "upgrade",
        "demo",
    ),
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
