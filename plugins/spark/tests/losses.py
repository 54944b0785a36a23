"""A Spark cluster of two executors that loses one: ``python -m plugins.spark.tests.losses FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import open_executor
from tests.worlds.engine_contract import check_losses
from tests.worlds.killer import find_workers

_EXECUTOR = "CoarseGrainedExecutorBackend"


def main(folder: Path) -> None:
    executor = open_executor("spark", Settings(engine_address="local-cluster[2,1,1024]"))
    assert executor.workers == 2
    check_losses(executor, lambda: os.kill(find_workers(os.getpid(), _EXECUTOR)[0], signal.SIGKILL), folder)
    executor.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
