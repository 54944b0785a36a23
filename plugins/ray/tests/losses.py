"""A Ray cluster of three nodes that loses one: ``python -m plugins.ray.tests.losses FOLDER``, in its own process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.reads.engines.port import open_executor
from tests.worlds.engine_contract import check_losses


def main(folder: Path) -> None:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as there: all nodes are on loopback
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - after our module, which sets Ray's environment

    options = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    nodes = [cluster.add_node(**options) for _ in range(2)]
    cluster.wait_for_nodes()
    executor = open_executor("ray", Settings(engine_address=cluster.address))
    assert executor.workers == 3
    check_losses(executor, lambda: cluster.remove_node(nodes[0], allow_graceful=False), folder)
    executor.close()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
