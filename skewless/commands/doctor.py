"""``skewless doctor``: checks of the machine and the project, with fixes."""

from __future__ import annotations

from pathlib import Path

import typer

from skewless.commands.cells import StateCell, Tone
from skewless.commands.options import Json, Repo
from skewless.commands.output import Part, command_output
from skewless.operations.checkup.finding import CheckupFinding

_TONES: dict[str, Tone] = {"ok": "good", "warn": "warning", "fail": "bad"}


def doctor(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Check the machine and the project, and suggest fixes; exit with code 1 if something must be fixed.

    The checks cover Python, packages, GPU, Redis, disk, memory, the port, the plan and the models.
    """
    with command_output(as_json=as_json, is_short=True) as output:
        from skewless.project import Project

        findings = Project.doctor(repo)
        ok = all(finding.verdict != "fail" for finding in findings)
        body = {"ok": ok, "checks": [finding.as_dict() for finding in findings]}
        output.show(body, *(part for finding in findings for part in _parts(finding)))
        if not ok:
            raise typer.Exit(1)


def _parts(finding: CheckupFinding) -> list[Part]:
    tone = _TONES[finding.verdict]
    line = StateCell(f"{finding.verdict:<5}", tone, f"{finding.name}: {finding.detail}")
    return [line, f"     fix: {finding.fix}"] if finding.fix else [line]
