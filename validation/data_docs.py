"""Writes Data Docs: an HTML page for each batch that a gate checked, and an index; they need no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from skewless.contract.clock import from_us
from skewless.infra.platform.pages import render_page
from skewless.infra.platform.storage.durable import replace_durable
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.validation.gate_report import GateReport

INDEX = "index.html"
_TEMPLATE = "data_docs.html"


def data_docs_folder(state: ProjectState) -> Path:
    """Return the folder of the last recorded validation's Data Docs."""
    return state / "data_docs"


def write_data_docs(reports: Sequence[GateReport], folder: Path, *, site: str, now_us: int) -> Path:
    """Write the pages of some reports into a folder, replacing older pages; return the index.

    Args:
        folder: created if it does not exist.
        site: name of the site.
        now_us: time of the reports, UTC microseconds.

    Raises:
        StoreError: the disk refused a page.
    """
    folder.mkdir(parents=True, exist_ok=True)  # outside of the state folder, with the user's default rights
    mode = folder.stat().st_mode & 0o644  # as private as the folder
    shared = {"site": site, "time": from_us(now_us).isoformat(sep=" ", timespec="seconds")}
    for report in reports:
        page = render_page(__package__, _TEMPLATE, report=report, **shared)
        replace_durable(folder / page_name(report.name), page.encode(), mode)
    # A percent sign in a file name must be quoted in its address.
    pages = [(report, quote(page_name(report.name))) for report in reports]
    index = render_page(__package__, _TEMPLATE, report=None, pages=pages, **shared)
    replace_durable(folder / INDEX, index.encode(), mode)
    return folder / INDEX


def page_name(name: str) -> str:
    """Return the file name of a batch's page.

    >>> page_name("labels:fraud")
    'labels%3Afraud.html'
    """
    return f"{quote(name, safe='')}.html"
