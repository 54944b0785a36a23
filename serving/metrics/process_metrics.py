"""The metrics of one serving process, with what it knows of its project and its machine."""

from __future__ import annotations

import shutil

from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity, read_last
from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.server_config import ServerConfig


def make_metrics(config: ServerConfig) -> Metrics:
    """Return the metrics of one process, including the stored results of parity, freshness and alerts."""
    state = config.state
    metrics = Metrics(
        parity=lambda: read_last(state, LastParity).values(),
        alerts=lambda: open_alerts(state),
        freshness=lambda: read_last(state, Freshness).values(),
    )
    metrics.database_down.watch(lambda: state.database.down_s() is not None)
    metrics.disk_free.watch(lambda: (disk := shutil.disk_usage(state.folder)).free / disk.total)
    return metrics
