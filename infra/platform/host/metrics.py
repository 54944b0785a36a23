"""A process's Prometheus metrics over HTTP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from skewless.contract.errors import PlaceError


def serve_metrics(collector: Collector, host: str, port: int, setting: str) -> int:
    """Serve a collector's metrics at an address, to everybody who can reach it; return the port.

    Args:
        host: a name or an address; others than loopback reach further than this machine.
        setting: name of the setting or option that chose the port, for errors.

    Raises:
        PlaceError: the port is in use, or the address is not one of this machine.
    """
    collectors = CollectorRegistry()
    collectors.register(collector)
    try:
        server, _ = start_http_server(port, addr=host, registry=collectors)
    except OSError as error:
        fix = f"choose another {setting} or metrics_host"
        raise PlaceError(f"port {port}", f"cannot be used: {error.strerror}", value=host, fix=fix) from error
    return int(server.server_port)
