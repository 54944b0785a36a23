"""Runs the comparisons: ``python -m benchmarks [NAME]``."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contestant import ContestantError
from benchmarks.page import FOLDER, WORKS, write
from benchmarks.programs import ProgramError
from benchmarks.result import Result
from benchmarks.scale import scale


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all works, or the one that is named, and write the tables after each.

    A work that fails keeps its old rows; the others run, and the exit code is 1.
    """
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("work", nargs="?", choices=WORKS, help="one work alone; none: all")
    parser.add_argument("--out", type=Path, help="folder for the tables; none: beside this program, if at full size")
    options = parser.parse_args(arguments)
    out = options.out or (FOLDER if scale() == 1 else None)
    failed = [name for name in ([options.work] if options.work else WORKS) if not _runs(name, out)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _runs(name: str, out: Path | None) -> bool:
    begun = time.monotonic()
    try:
        results: list[Result] = importlib.import_module(f"benchmarks.{name}").run()
    except (ContestantError, ProgramError) as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return False
    for item in results:
        ratio = "" if item.ratio is None else f", {item.ratio:.3g} x {item.against}"
        print(f"{item.name}: {item.value:.4g} {item.unit}{ratio}", flush=True)
    print(f"({name} took {time.monotonic() - begun:.0f} s)", flush=True)
    if out is not None:
        _save(name, results, out)
    return True


def _save(name: str, results: Sequence[Result], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    plot = getattr(importlib.import_module(f"benchmarks.{name}"), "plot", None)
    if plot is not None:
        (out / f"{name}.svg").write_text(plot(results), encoding="utf-8")
    write(results, out)


if __name__ == "__main__":
    main()
