"""The result of a check: ``doctor``, the first page of the control room and the alerts show findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.errors import SkewlessError
from skewless.contract.plain_record import PlainRecord

Verdict = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, kw_only=True)
class CheckFinding(PlainRecord):
    """The result of one check.

    Args:
        name: of its subject, such as ``clock`` or ``server web1 77``.
        verdict: ``fail``: a command, or a prediction, would not work; ``warn``: it may not work; ``unknown``: the check
            has not run, is overdue, or had too little to compare.
        detail: a clause.
        fix: an imperative, or a command that shows more; None: nothing to fix.
        facts: the detail as plain values, if it is more than a sentence.
        is_urgent: whether predictions may soon be wrong or fail, although commands work.
        since_us: microseconds of the project's clock; None: unknown.
        runbook: the section to read; empty: none.
        views, models, run: its subjects, for links; the first three views or models.
        total: number of views or models; 0: it is not about single ones.
        alert: its number; None: it is not an alert.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str | None = None
    facts: Sequence[Mapping[str, Any]] = ()
    is_urgent: bool = False
    since_us: int | None = None
    runbook: str = ""
    views: Sequence[str] = ()
    models: Sequence[str] = ()
    total: int = 0
    run: str = ""
    alert: int | None = None

    @property
    def is_critical(self) -> bool:
        """Return whether predictions are wrong or fail, or may soon."""
        return self.verdict == "fail" or self.is_urgent

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values of the doctor; ``facts`` only if there are some."""
        facts = {"facts": self.facts} if self.facts else {}
        return {"name": self.name, "verdict": self.verdict, "detail": self.detail, "fix": self.fix, **facts}


def good(name: str, detail: str, facts: Sequence[Mapping[str, Any]] = ()) -> CheckFinding:
    """Return a finding with nothing to fix."""
    return CheckFinding(name=name, verdict="ok", detail=detail, facts=facts)


def doubt(
    name: str, detail: str, fix: str, facts: Sequence[Mapping[str, Any]] = (), *, section: str = ""
) -> CheckFinding:
    """Return a finding that may matter.

    Args:
        section: of the runbooks; empty: none.
    """
    return CheckFinding(name=name, verdict="warn", detail=detail, fix=fix, facts=facts, runbook=runbook(section))


def bad(name: str, detail: str, fix: str, *, section: str = "") -> CheckFinding:
    """Return a finding that stops a command from working.

    Args:
        section: as ``doubt``.
    """
    return CheckFinding(name=name, verdict="fail", detail=detail, fix=fix, runbook=runbook(section))


def runbook(section: str) -> str:
    """Return where a section of the runbooks is; empty: there is none."""
    return f"docs/runbooks.md#skewless{section}" if section else ""


def unknown(name: str, detail: str, fix: str) -> CheckFinding:
    """Return that a check has no result."""
    return CheckFinding(name=name, verdict="unknown", detail=detail, fix=fix)


def from_error(name: str, error: SkewlessError) -> CheckFinding:
    """Return an error as a finding, without passwords."""
    from skewless.infra.platform.telemetry.redaction import redact

    return bad(name, redact(" ".join(error.cause().split())), redact(error.fix))


def run_check(name: str, check: Callable[[], Iterable[CheckFinding]]) -> list[CheckFinding]:
    """Return the findings of a check; if it cannot be run, its result is unknown."""
    try:
        return list(check())
    except SkewlessError as error:
        return [unknown(name, f"{error.thing}: {error.problem}", error.fix)]
