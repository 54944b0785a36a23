"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skewless.errors import SkewlessError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one thing.

    Args:
        verdict: ``fail`` where a verb would not work, ``warn`` where it may not.
        fix: what to do; None where there is nothing to do.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str | None = None


def good(name: str, detail: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(name=name, verdict="ok", detail=detail)


def doubt(name: str, detail: str, fix: str) -> Finding:
    """Return a finding that may matter."""
    return Finding(name=name, verdict="warn", detail=detail, fix=fix)


def bad(name: str, detail: str, fix: str) -> Finding:
    """Return a finding that stops a verb from working."""
    return Finding(name=name, verdict="fail", detail=detail, fix=fix)


def from_error(name: str, error: SkewlessError) -> Finding:
    """Return an error as a finding, without passwords."""
    from infra.redaction import redact

    value = "" if error.value is None else f" (got {error.value})"
    return bad(name, redact(" ".join(f"{error.thing}: {error.problem}{value}".split())), redact(error.fix))
