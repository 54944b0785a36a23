"""``python -m skewless_demo.flights --repo feature_repo``: write the flights as tables to the project's ``data``."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from skewless.infra.definitions.compiler.compile import MODELS, load_module
from skewless_demo.flights.loading import load


def main() -> None:
    """Load the data of the project of the command line, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, default=Path("feature_repo"), help="folder of the project")
    repo = parser.parse_args().repo.resolve()
    start = time.monotonic()
    sys.path.append(str(repo))  # where its modules import each other
    report = load(repo / "data", datetime.now(UTC), load_module(repo, MODELS).MODELS[0])
    print("\n".join(report.lines()))
    print(f"{time.monotonic() - start:.1f} seconds")


if __name__ == "__main__":
    main()
