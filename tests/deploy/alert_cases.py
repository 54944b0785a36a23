"""What each alert of infra/deploy/prometheus/rules.yml is about: series that are healthy, then faulty, then healthy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

# Minutes of each phase. The last one is longer than the longest window of a rule that has to end.
HEALTHY, FAULTY, RECOVERED = 60, 30, 150
Series = dict[str, str]
_SERVER = 'job="skewless-server",instance="a"'


def gauge(name: str, healthy: float | str, faulty: float | str, labels: str = _SERVER) -> Series:
    """Return a gauge with these values; ``_``: it is missing."""
    values = [healthy] * HEALTHY + [faulty] * FAULTY + [healthy] * RECOVERED
    return {f"{name}{{{labels}}}": " ".join(map(str, values))}


def counter(name: str, healthy: int, faulty: int, labels: str = _SERVER) -> Series:
    """Return a counter that grows by this much per minute."""
    steps = [healthy] * HEALTHY + [faulty] * FAULTY + [healthy] * RECOVERED
    return {f"{name}{{{labels}}}": " ".join(map(str, accumulate(steps)))}


def rising(name: str, labels: str) -> Series:
    """Return a gauge that rises from 20,000 on while it is faulty."""
    values = [0] * HEALTHY + [20_000 + 1_000 * i for i in range(FAULTY)] + [0] * RECOVERED
    return {f"{name}{{{labels}}}": " ".join(map(str, values))}


def alert(name: str, subject: str = "model fraud", severity: str = "warning") -> Series:
    """Return the series of an alert of the project."""
    return gauge("skewless_alert", 0, 1, f'{_SERVER},name="{name}",severity="{severity}",subject="{subject}"')


def requests(faulty_outcome: str) -> Series:
    """Return requests that are answered, and then end otherwise."""
    outcome = f'{_SERVER},model="fraud",version="1",outcome='
    return counter("skewless_requests_total", 1_000, 0, f'{outcome}"ok"') | counter(
        "skewless_requests_total", 0, 1_000, f'{outcome}"{faulty_outcome}"'
    )


_SLOW = counter("skewless_request_seconds_bucket", 1_000, 0, f'{_SERVER},le="0.05"') | counter(
    "skewless_request_seconds_count", 1_000, 1_000
)
_STREAM = 'job="skewless-stream",instance="b",source="landings"'
CASES: dict[str, Series] = {
    "SkewlessServerDown": gauge("up", 1, 0),
    "SkewlessStreamDown": gauge("up", 1, 0, 'job="skewless-stream",instance="b"'),
    "SkewlessAvailabilityBurn": requests("store"),
    "SkewlessAvailabilitySlowBurn": requests("busy"),
    "SkewlessLatencyBurn": _SLOW,
    "SkewlessLatencySlowBurn": _SLOW,
    "SkewlessOverloaded": counter("skewless_refused_requests_total", 0, 60, f'{_SERVER},reason="overload"'),
    "SkewlessWorkerRestarts": counter("skewless_worker_restarts_total", 0, 1),
    "SkewlessModelRefused": gauge("skewless_model_refused", 0, 1, f'{_SERVER},model="fraud"'),
    "SkewlessStoreDown": gauge("skewless_breaker_state", 0, 2),
    "SkewlessDegraded": requests("degraded"),
    "SkewlessDatabaseDown": gauge("skewless_database_down", 0, 1),
    "SkewlessLogDropped": counter("skewless_log_dropped_total", 0, 5, f'{_SERVER},reason="disk"'),
    "SkewlessLogWaiting": gauge("skewless_log_files_waiting", 0, 7),
    "SkewlessDiskFull": gauge("skewless_disk_free_ratio", 0.5, 0.05),
    "SkewlessClockSkew": gauge("skewless_clock_skew_seconds", -0.01, -3),
    "SkewlessCertificateExpires": gauge("skewless_certificate_expires_seconds", 40 * 86_400, 86_400),
    "SkewlessViewStale": alert("freshness", "view landings_now"),
    "SkewlessStreamLag": rising("skewless_stream_lag", _STREAM),
    "SkewlessStreamWaiting": gauge("skewless_stream_waiting", 0, 1, _STREAM),
    "SkewlessStreamRejects": counter("skewless_stream_read_total", 1_000, 1_000, _STREAM)
    | counter("skewless_stream_rejected_total", 0, 100, _STREAM),
    "SkewlessParity": gauge("skewless_parity_mismatches", 0, 3, f'{_SERVER},view="cards",cause="lost"'),
    "SkewlessReplay": alert("replay", severity="critical"),
    "SkewlessDrift": alert("drift"),
    "SkewlessAlert": alert("process_silent", "scheduler", "critical"),
    "SkewlessSchedulerWithoutLeader": gauge("skewless_scheduler_holder", 1, 0, 'job="skewless-scheduler"'),
    "SkewlessJobFailed": counter(
        "skewless_runs_total", 0, 1, 'job="skewless-scheduler",exported_job="train",state="failed"'
    ),
    "SkewlessSeriesMissing": gauge("skewless_requests_in_flight", 3, "_"),
}


def cases_of(names: Sequence[str]) -> list[dict[str, object]]:
    """Return the tests of ``promtool test rules`` for some alerts: quiet, then firing, then quiet.

    A test evaluates all rules for hours, so alerts share one if no series of theirs has the name of another's.
    """
    groups: list[list[str]] = []
    for name in names:
        fitting = (group for group in groups if not any(_clash(CASES[name], CASES[other]) for other in group))
        group = next(fitting, None)
        if group is None:
            groups.append(group := [])
        group.append(name)
    return [_case(group) for group in groups]


def _clash(series: Series, other: Series) -> bool:
    """Return whether a rule about one's series would read the other's, too."""
    names, other_names = ({text.partition("{")[0] for text in each} for each in (series, other))
    return series != other and not names.isdisjoint(other_names)


def _case(names: Sequence[str]) -> dict[str, object]:
    series = {text: values for name in names for text, values in CASES[name].items()}
    return {
        "name": " ".join(names),
        "interval": "1m",
        "input_series": [{"series": text, "values": values} for text, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                "eval_time": f"{minute - 1}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if is_firing else [],
            }
            for name in names
            for minute, is_firing in (
                (HEALTHY, False),
                (HEALTHY + FAULTY, True),
                (HEALTHY + FAULTY + RECOVERED, False),
            )
        ],
    }
