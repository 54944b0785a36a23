"""Validation of a project's sources and labels, with Data Docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import GateError

if TYPE_CHECKING:
    from skewless.validation.gate_report import GateReport
    from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The verdicts on sources and labels.

    Args:
        docs: index of the written Data Docs; None: none were written.
    """

    reports: list[GateReport]
    docs: Path | None = None

    @property
    def error(self) -> GateError | None:
        """Return the error of the first closed gate; None: all gates are open."""
        try:
            for report in self.reports:
                report.raise_if_failed()
        except GateError as error:
            return error
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; ``docs`` only if they were written."""
        body = {"success": self.error is None, "reports": [report.as_dict() for report in self.reports]}
        return body if self.docs is None else body | {"docs": str(self.docs)}


def validate(
    project: Workspace,
    names: Sequence[str] = (),
    *,
    everything: bool = False,
    record: bool = False,
    docs: Path | None = None,
) -> ValidationReport:
    """Check sources and label tables against the suites of ``expectations.py``.

    Args:
        names: views and models; empty: all.
        everything: check labels that passed before again; else only new labels.
        record: record which labels passed, and store Data Docs in the state folder.
        docs: folder for Data Docs.

    Raises:
        RequestError: a name is neither a view nor a model.
        SourceError: a source is missing or corrupt.
    """
    views, models = project.applied.plan.views, project.applied.models
    reports = project.checks.check_all(views, models, names, everything=everything, remember=record)
    return ValidationReport(reports=reports, docs=_write_docs(project, reports, docs) if docs or record else None)


def _write_docs(project: Workspace, reports: Sequence[GateReport], docs: Path | None) -> Path:
    from skewless.validation.data_docs import data_docs_folder, write_data_docs

    folder = (docs or data_docs_folder(project.state)).resolve()
    return write_data_docs(reports, folder, site=project.applied.plan.project, now_us=project.clock.now_us())
