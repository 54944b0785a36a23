"""``skewless doctor``: checks this machine and the project, and says what to fix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from skewless.commands.options import Json, Repo
from skewless.commands.output import answering

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.checkup.finding import CheckupFinding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Check Python, packages, GPU, Redis, disk, memory, port, plan, models; exit 1 if something must be fixed."""
    with answering(as_json=as_json) as output:
        from skewless.project import Project

        findings = Project.doctor(repo)
        ok = all(finding.verdict != "fail" for finding in findings)
        body = {"ok": ok, "checks": [finding.as_dict() for finding in findings]}
        output.answer(body, *(_line(finding) for finding in findings))
        if not ok:
            raise typer.Exit(1)


def _line(finding: CheckupFinding) -> RenderableType:
    from rich.text import Text

    line = Text(f"{finding.verdict:<5}", style=_STYLES[finding.verdict])
    line.append(f"{finding.name}: {finding.detail}", style="default")
    if finding.fix:
        line.append(f"\n     fix: {finding.fix}", style="default")
    return line
