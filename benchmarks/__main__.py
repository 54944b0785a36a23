"""Runs the comparisons: ``python -m benchmarks [NAME]``."""

from __future__ import annotations

import importlib
import os
import sys

from benchmarks.result import write

WORKS = ("join", "materialize", "serving")


def main() -> None:
    """Run all works, or the one that is named, and write the tables."""
    only = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ONLY")
    if only and only not in WORKS:
        sys.exit(f"unknown work {only!r}: use one of {', '.join(WORKS)}")
    for name in WORKS if not only else (only,):
        results = importlib.import_module(f"benchmarks.{name}").run()
        for item in results:
            print(f"{item.name}: {item.value:.4g} {item.unit}, {item.ratio:.2f} x {item.against}")
        write(results)


if __name__ == "__main__":
    main()
