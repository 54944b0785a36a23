"""The scheduler's metrics: what ended, how long it took, who works."""

from __future__ import annotations

import socket
from urllib.request import urlopen

import pytest

from skewless.contract.errors import PlaceError
from skewless.infra.platform.host.metrics import serve_metrics
from skewless.infra.platform.jobs.metrics import RunMetrics
from skewless.infra.platform.jobs.run import Run, RunId, State


def ended(job: str, state: State, seconds: int, at_s: int) -> Run:
    return Run(
        id=RunId(job=job, tick_us=0),
        cause="due",
        token=1,
        started_us=(at_s - seconds) * 1_000_000,
        state=state,
        ended_us=at_s * 1_000_000,
    )


def test_runs_are_counted_and_served() -> None:
    counts = RunMetrics(lambda: True)
    for run in (ended("a", "done", 2, 10), ended("a", "done", 3, 20), ended("a", "failed", 4, 30)):
        counts.count(run)
    with urlopen(
        f"http://127.0.0.1:{serve_metrics(counts, '127.0.0.1', 0, 'scheduler_metrics_port')}/metrics"
    ) as reply:
        lines = reply.read().decode().splitlines()
    assert [line for line in lines if line.startswith("skewless")] == [
        'skewless_runs_total{job="a",state="done"} 2.0',
        'skewless_runs_total{job="a",state="failed"} 1.0',
        'skewless_run_seconds_total{job="a"} 9.0',
        'skewless_run_last_done_timestamp_seconds{job="a"} 20.0',
        "skewless_scheduler_holder 1.0",
    ]


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PlaceError, match="scheduler_metrics_port"):
        serve_metrics(RunMetrics(), "127.0.0.1", taken.getsockname()[1], "scheduler_metrics_port")


def test_an_address_of_another_machine_is_an_error_that_names_it() -> None:
    with pytest.raises(
        PlaceError, match=r"\(got '192\.0\.2\.1'\)\. Fix: choose another scheduler_metrics_port or metri"
    ):
        serve_metrics(RunMetrics(), "192.0.2.1", 0, "scheduler_metrics_port")


def test_all_addresses_of_a_machine_serve_the_metrics() -> None:
    port = serve_metrics(RunMetrics(), "0.0.0.0", 0, "--metrics-port")  # noqa: S104 - as in a pod
    with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        assert reply.status == 200
