"""A work of the benchmarks with all its contestants in this process: ``python -m ... WORK OUT``.

In ``make bench`` each contestant has a fresh process; importing Feast in each takes longer than all the work.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from feast.cli.cli import cli as feast

from benchmarks import __main__ as bench
from benchmarks import programs
from benchmarks.contestant import Contestant
from benchmarks.meter import Meter, Report
from skewless.cli import create_app


def main() -> None:
    """Run the work and write its tables to a folder."""
    work, out = sys.argv[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Contestant, "run", _run_here)
        patch.setattr(programs, "_run", _program_here)
        bench.main([work, "--out", out])


def _run_here(contestant: Contestant) -> Report:
    meter = Meter()
    return meter.report(contestant.entrant(meter, **json.loads(json.dumps(contestant.arguments))))


def _program_here(program: str, arguments: list[str], environment: dict[str, str], nice: int = 0) -> None:  # noqa: ARG001 - of a process of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path.cwd())
        patch.setattr(sys, "path", list(sys.path))
        for name, value in environment.items():
            patch.setenv(name, value)
        if "feast" in program:
            feast.main(arguments, standalone_mode=False)
        else:
            create_app()(arguments, standalone_mode=False)
    sys.modules.pop("definitions", None)


if __name__ == "__main__":
    main()
