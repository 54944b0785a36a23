"""Data Docs: what gates found, as a page for each batch and an index that are read without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from skewless.contract.clock import from_us
from skewless.infra.pages import render_page
from skewless.infra.storage.durable import replace_durable
from skewless.validation.gate_report import GateReport

INDEX = "index.html"
_TEMPLATE = "data_docs.html"


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
    folder.mkdir(parents=True, exist_ok=True)  # outside of the state it is as open as other folders of its owner
    shared = {"site": site, "time": from_us(now_us).isoformat(sep=" ", timespec="seconds")}
    for report in reports:
        _write(folder / page_name(report.name), render_page(__package__, _TEMPLATE, report=report, **shared))
    # A percent sign of a file's name is none of its address.
    pages = [(report, quote(page_name(report.name))) for report in reports]
    _write(folder / INDEX, render_page(__package__, _TEMPLATE, report=None, pages=pages, **shared))
    return folder / INDEX


def page_name(name: str) -> str:
    """Return the file with the results of a batch.

    >>> page_name("labels:fraud")
    'labels%3Afraud.html'
    """
    return f"{quote(name, safe='')}.html"


def _write(path: Path, page: str) -> None:
    replace_durable(path, page.encode(), 0o644)
