"""Great Expectations' Data Docs of what gates found: a page for each batch and an index, written by GE's renderers.

GE builds such sites from a data context with stores on disk. None is needed: its page renderers and views take results,
and ours hold all that they show. The pages take their styles from public networks; without one they are plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from infra.durable import replace_durable
from skewless.clock import from_us
from validation.gate_report import ExpectationResult, GateReport

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )

INDEX = "index.html"


def data_docs_folder(state: Path) -> Path:
    """Return where the Data Docs of the last recorded validation lie in a state folder."""
    return state / "data_docs"


def write_data_docs(reports: Sequence[GateReport], folder: Path, *, site: str, now_us: int) -> Path:
    """Write the pages of some reports into a folder, in the place of older ones; return the index.

    Args:
        folder: made if it is not there.
        site: name of the site.
        now_us: when the reports were made, UTC microseconds.

    Raises:
        StoreError: the disk refused a page.
    """
    from great_expectations.render.renderer.page_renderer import (  # noqa: PLC0415 - seconds; only for these pages
        ValidationResultsPageRenderer,
    )
    from great_expectations.render.renderer.site_index_page_renderer import (  # noqa: PLC0415 - as above
        SiteIndexPageRenderer,
    )
    from great_expectations.render.view import (  # noqa: PLC0415 - as above
        DefaultJinjaIndexPageView,
        DefaultJinjaPageView,
    )

    for report in reports:
        document = ValidationResultsPageRenderer(run_info_at_end=True).render(_suite_result(report, now_us))
        _write(folder / page_name(report.name), DefaultJinjaPageView().render(document))  # type: ignore[no-untyped-call]
    links = {"site_name": site, "validations_links": [_link(report, now_us) for report in reports]}
    index = SiteIndexPageRenderer.render(links)  # type: ignore[no-untyped-call]
    _write(folder / INDEX, DefaultJinjaIndexPageView().render(index))  # type: ignore[no-untyped-call]
    return folder / INDEX


def page_name(name: str) -> str:
    """Return the file with the results of a batch.

    >>> page_name("labels:fraud")
    'labels%3Afraud.html'
    """
    return f"{quote(name, safe='')}.html"


def _write(path: Path, page: str) -> None:
    replace_durable(path, page.encode(), 0o644)


def _link(report: GateReport, now_us: int) -> dict[str, Any]:
    time = from_us(now_us).isoformat()
    page = quote(page_name(report.name))  # a percent sign of a file's name is none of its address
    return {
        "validation_success": report.success,
        "run_time": time,
        "run_name": time,
        "batch_identifier": report.name,
        "expectation_suite_name": report.name,
        "asset_name": report.name,
        "expectation_suite_filepath": page,
        "filepath": page,
    }


def _suite_result(report: GateReport, now_us: int) -> ExpectationSuiteValidationResult:
    from great_expectations.core.expectation_validation_result import (  # noqa: PLC0415 - as above
        ExpectationSuiteValidationResult,
    )

    n, good = len(report.results), sum(result.success for result in report.results)
    time = from_us(now_us).isoformat()
    return ExpectationSuiteValidationResult(
        success=report.success,
        results=[_result(result, report.n_rows) for result in report.results],
        suite_name=report.name,
        statistics={
            "evaluated_expectations": n,
            "successful_expectations": good,
            "unsuccessful_expectations": n - good,
            "success_percent": 100 * good / n if n else None,
        },
        meta={
            "great_expectations_version": version("great_expectations"),
            "run_id": {"run_name": time, "run_time": time},
            "active_batch_definition": {"data_asset_name": report.name},
            "batch_kwargs": {"data_asset_name": report.name},
            "batch_spec": {},
            "batch_markers": {},
        },
    )


def _result(result: ExpectationResult, n_rows: int) -> ExpectationValidationResult:
    from great_expectations.core.expectation_validation_result import (  # noqa: PLC0415 - as above
        ExpectationValidationResult,
    )
    from great_expectations.expectations.expectation_configuration import (  # noqa: PLC0415 - as above
        ExpectationConfiguration,
    )
    from great_expectations.expectations.metadata_types import FailureSeverity  # noqa: PLC0415 - as above

    seen: dict[str, Any] = {"element_count": n_rows}
    if result.success and _counts_values(result):
        seen |= {"unexpected_count": 0, "unexpected_percent": 0.0, "partial_unexpected_list": []}
    if result.unexpected_count is not None:
        seen |= {
            "unexpected_count": result.unexpected_count,
            "unexpected_percent": result.unexpected_percent,
            "partial_unexpected_list": list(result.sample),
        }
    if result.observed is not None:
        seen["observed_value"] = result.observed
    return ExpectationValidationResult(
        success=result.success,
        expectation_config=ExpectationConfiguration(
            type=result.expectation, kwargs=dict(result.kwargs), severity=FailureSeverity(result.severity)
        ),
        result=seen,
        exception_info={
            "raised_exception": result.error is not None,
            "exception_message": result.error,
            "exception_traceback": None if result.error is None else "",
        },
    )


def _counts_values(result: ExpectationResult) -> bool:
    """Say whether an expectation holds only if no value breaks it."""
    return result.expectation.startswith("expect_column_values_") and result.kwargs.get("mostly", 1) == 1
