"""One line of the doctor's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from skewless.contract.errors import SkewlessError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class CheckupFinding:
    """The result of one check.

    Args:
        verdict: ``fail``: a command would not work; ``warn``: it may not work.
        fix: an imperative; None: nothing to fix.
        facts: the detail as plain values, if it is more than a sentence.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str | None = None
    facts: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; ``facts`` only if there are some."""
        values = asdict(self)
        if not self.facts:
            del values["facts"]
        return values


def good(name: str, detail: str, facts: Sequence[Mapping[str, Any]] = ()) -> CheckupFinding:
    """Return a finding with nothing to fix."""
    return CheckupFinding(name=name, verdict="ok", detail=detail, facts=facts)


def doubt(name: str, detail: str, fix: str, facts: Sequence[Mapping[str, Any]] = ()) -> CheckupFinding:
    """Return a finding that may matter."""
    return CheckupFinding(name=name, verdict="warn", detail=detail, fix=fix, facts=facts)


def bad(name: str, detail: str, fix: str) -> CheckupFinding:
    """Return a finding that stops a command from working."""
    return CheckupFinding(name=name, verdict="fail", detail=detail, fix=fix)


def from_error(name: str, error: SkewlessError) -> CheckupFinding:
    """Return an error as a finding, without passwords."""
    from skewless.infra.platform.telemetry.redaction import redact

    return bad(name, redact(" ".join(error.cause().split())), redact(error.fix))
