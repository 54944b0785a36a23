"""The ledger of materializations: reads of a project with 1,000,000 runs against one with 1,000, in both databases.

The runs apply rows of ten views in turn. Each time is of a new process's first question, except where it says later.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.result import Result
from benchmarks.scale import rounds, scaled
from skewless.infra.log.runs import Coverage, RunLedger
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import open_database
from skewless.infra.platform.storage.schema import COVERAGE_SUM, RUN_SUM
from tools.postgres_server import running_postgres

VIEWS, ROUNDS = 10, 5
_FEW = 1_000
_MOST_S = 0.5  # of all questions of a process together, more than with few runs
_PARTITIONS = tuple(f"batch/view{number}-0123456789abcdef" for number in range(VIEWS))
_MINUTE_US, _ROWS = 60_000_000, 5


def run() -> list[Result]:
    """Ask ledgers of both lengths in each database."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, running_postgres() as server:
        for kind in ("SQLite", "PostgreSQL"):
            times = []
            for name, runs in (("few", _FEW), ("many", scaled(1_000_000, least=_FEW))):
                url = f"{server}{'&' if '?' in server else '?'}schema={name}"
                database = open_database(f"sqlite:///{Path(folder) / name}.db" if kind == "SQLite" else url)
                write_runs(database, runs)
                times.append(_ask(database))
                database.close()
            results += [_row(kind, question, times[0][question], seconds) for question, seconds in times[1].items()]
    return results


def write_runs(database: Database, runs: int) -> None:
    """Write a ledger of runs that each applied rows of one view."""
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
    with database.transaction():
        start = f"n * {_MINUTE_US}"
        database.execute(
            f"{numbers} INSERT INTO materializations SELECT n, {start}, 0, {start} + 1000000, 1, 0 FROM numbers", runs
        )
        database.execute(
            f"{numbers} INSERT INTO coverage SELECT 'batch/view' || (n % {VIEWS}) || '-0123456789abcdef', n, "
            f"n * {_ROWS}, n * {_ROWS} + {_ROWS - 1}, 'live', {start} + 1000000, 0 FROM numbers",
            runs,
        )
        for table, checksum in (("materializations", RUN_SUM), ("coverage", COVERAGE_SUM)):
            database.execute(f"UPDATE {table} SET checksum = {checksum.sql}")
    database.execute("ANALYZE")


def _ask(database: Database) -> Mapping[str, float]:
    """Return the seconds of each question, the median over some ledgers that have read nothing yet."""
    laps: dict[str, list[float]] = {}
    for _ in range(rounds(ROUNDS)):
        ledger = RunLedger(database)
        for question, ask in _questions(ledger).items():
            begun = time.perf_counter()
            ask()
            laps.setdefault(question, []).append(time.perf_counter() - begun)
    return {question: statistics.median(seconds) for question, seconds in laps.items()}


def _questions(ledger: RunLedger) -> Mapping[str, Callable[[], object]]:
    first = _PARTITIONS[0]
    return {
        "positions of a server": ledger.last_positions,
        f"status of {VIEWS} views": lambda: [
            (ledger.last_end_us(each), ledger.recent_ranges(each, 1_000)) for each in _PARTITIONS
        ],
        "known times of one view": lambda: ledger.known_ranges(first),
        "known times of one view, later": lambda: ledger.known_ranges(first),
        f"known times of {VIEWS} views": lambda: [ledger.known_ranges(each) for each in _PARTITIONS],
        "times of all runs (replay)": ledger.times,
        "times of all runs (replay), later": ledger.times,
        "a materialization": lambda: _materialize(ledger),
    }


def _materialize(ledger: RunLedger) -> None:
    last = ledger.last_position(_PARTITIONS[0]) or 0
    begun = ledger.start(0)
    ledger.finish(begun, {_PARTITIONS[0]: Coverage(last + 1, last + _ROWS, "live")}, 1)


def _row(kind: str, question: str, few: float, many: float) -> Result:
    return Result(
        name=f"ledger: {kind}, {question}",
        value=many * 1e3,
        unit="ms",
        against=f"{_FEW:,} runs ({few * 1e3:.2g} ms) and {_MOST_S:g} s",
        ratio=many / (few + _MOST_S),
        target=1.0,
    )
