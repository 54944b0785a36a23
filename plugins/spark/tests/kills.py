"""Kills of Spark's workers: ``python -m plugins.spark.tests.kills CHECK FOLDER KILLS``, in a process of its own.

A session has one number of attempts, and so many kills in a short time need more than users do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import open_executor
from tests.worlds import engine_contract


def main(check: str, folder: Path, kills: int) -> None:
    executor = open_executor("spark", Settings(engine_address="local[2,100]"))
    getattr(engine_contract, check)(executor, folder, kills)
    executor.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
