"""The help of ``skewless``: its commands in sections, one for each part of the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Define": ("init", "plan", "apply", "validate"),
    "Data": ("materialize", "import", "stream", "backfill", "get", "dataset"),
    "Train": ("train", "promote", "versions", "triggers", "track", "sign"),
    "Serve": ("serve", "predict", "rollout", "rollback", "feedback", "keys"),
    "Watch": ("quality", "drift", "freshness", "importance", "why", "replay", "parity", "alerts", "report"),
    "Operate": ("status", "doctor", "scheduler", "runs", "housekeeping", "backup", "restore", "upgrade", "demo"),
}


class SectionedGroup(TyperGroup):
    """A group of commands whose help lists them by section."""

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
