"""Materialisation of ten million entities: is the rate flat, does the client's memory stay where it was?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import loads
from benchmarks.contestant import Contestant
from benchmarks.meter import Report
from benchmarks.repo import ViewTable, applied_repo
from benchmarks.result import Result
from benchmarks.scale import scaled
from benchmarks.server import own_server

_FEATURES = 30


def run() -> list[Result]:
    """Materialise 10 M entities x 30 features once, and a tenth of them to compare with."""
    large = ViewTable(name="wide", n_entities=scaled(10_000_000, 2_000), n_features=_FEATURES, text=True)
    small = ViewTable(name="wide", n_entities=large.n_entities // 10, n_features=_FEATURES, text=True)
    return _results(_load(small), _load(large), large)


def _load(table: ViewTable) -> Report:
    with tempfile.TemporaryDirectory() as name, own_server() as url:
        folder = Path(name)
        table.write(folder)
        arguments = {
            "repo": str(applied_repo(folder / "repo", [table], folder)),
            "url": url,
            "n_entities": table.n_entities,
            "watch": True,
        }
        return Contestant(name="skewless", entrant=loads.skewless, arguments=arguments).run()


def _results(small: Report, large: Report, table: ViewTable) -> list[Result]:
    what = f"materialize_large: {table.n_entities:,} entities x {table.n_features} features"
    facts, peak = large.facts, large.peak_bytes()
    whole = table.n_entities / large.seconds()
    tenth = (table.n_entities // 10) / small.seconds()
    return [
        Result(name=f"{what}, whole run", value=large.seconds(), unit="s", against="-", ratio=None),
        Result(
            name=f"{what}, rate of the whole run",
            value=whole,
            unit="rows/s",
            against=f"a tenth of the entities ({tenth:,.0f} rows/s)",
            ratio=whole / tenth,
            target=0.95,
        ),
        Result(
            name=f"{what}, rate of a late fifth of the writes",
            value=facts["late_rate"],
            unit="rows/s",
            against=f"an early fifth ({facts['early_rate']:,.0f} rows/s)",
            ratio=facts["late_rate"] / facts["early_rate"],
            target=0.95,
        ),
        Result(
            name=f"{what}, client memory",
            value=peak / 1e6,
            unit="MB",
            against=f"a tenth of the entities ({small.peak_bytes() / 1e6:,.0f} MB)",
            ratio=peak / small.peak_bytes(),
            target=1.1,
        ),
        Result(
            name=f"{what}, client memory in the second half of the writes",
            value=facts["late_bytes"] / 1e6,
            unit="MB",
            against=f"until then ({facts['early_bytes'] / 1e6:,.0f} MB)",
            ratio=facts["late_bytes"] / facts["early_bytes"],
            target=1.1,
        ),
    ]
