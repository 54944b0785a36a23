"""The doctor's findings, by name."""

from __future__ import annotations

from collections.abc import Iterable

from skewless.operations.health.finding import CheckFinding


def lines(findings: Iterable[CheckFinding]) -> dict[str, tuple[str, str]]:
    """Return verdict and detail of each finding."""
    return {finding.name: (finding.verdict, finding.detail) for finding in findings}


def judged(findings: Iterable[CheckFinding]) -> dict[str, str]:
    """Return the verdict of each finding."""
    return {name: verdict for name, (verdict, _) in lines(findings).items()}
