"""A process's Prometheus metrics over HTTP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from skewless.contract.errors import PlaceError


def serve_metrics(collector: Collector, port: int, setting: str) -> int:
    """Serve a collector's metrics on loopback; return the port.

    Args:
        setting: name of the setting or option that chose the port, for errors.

    Raises:
        PlaceError: the port is in use.
    """
    collectors = CollectorRegistry()
    collectors.register(collector)
    try:
        server, _ = start_http_server(port, addr="127.0.0.1", registry=collectors)
    except OSError as error:
        fix = f"choose another {setting}"
        raise PlaceError(f"port {port}", f"cannot be used: {error.strerror}", fix=fix) from error
    return int(server.server_port)
