"""Writes the dashboards of Grafana: ``python -m tools.dashboards``. A panel is a question, with queries and a unit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "infra" / "deploy" / "grafana"
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_RATE = "[$__rate_interval]"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A time series.

    Args:
        title: what it shows.
        meaning: a sentence below the title.
        unit: of Grafana: ``reqps``, ``s``, ``percentunit``, ``short``, ``bytes``, ``dateTimeFromNow``.
        queries: expression by legend.
    """

    title: str
    meaning: str
    unit: str
    queries: Mapping[str, str]


def _quantile(metric: str, quantile: float, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucket{_RATE})))"


_REQUESTS = f"sum(rate(skewless_requests_total{_RATE}))"
_READS = f"sum by (view) (rate(skewless_feature_reads_total{_RATE}))"
SERVING = (
    Panel(
        title="Requests",
        meaning="Answered requests by outcome; ok and degraded are predictions.",
        unit="reqps",
        queries={"{{outcome}}": f"sum by (outcome) (rate(skewless_requests_total{_RATE}))"},
    ),
    Panel(
        title="Latency",
        meaning="Time to answer, without rejected requests.",
        unit="s",
        queries={f"p{q}": _quantile("skewless_request_seconds", q / 100) for q in (50, 95, 99)},
    ),
    Panel(
        title="Stages, mean",
        meaning="Where the time of a request goes; stages of a batch count once per batch.",
        unit="s",
        queries={
            "{{stage}}": f"sum by (stage) (rate(skewless_stage_seconds_sum{_RATE}))"
            f" / sum by (stage) (rate(skewless_stage_seconds_count{_RATE}))"
        },
    ),
    Panel(
        title="In progress and waiting",
        meaning="Requests at this moment; those that wait have no room yet.",
        unit="short",
        queries={"in progress": "sum(skewless_requests_in_flight)", "waiting": "sum(skewless_requests_waiting)"},
    ),
    Panel(
        title="Requests in a batch, mean",
        meaning="The busier the server, the larger its batches.",
        unit="short",
        queries={
            "requests": f"sum(rate(skewless_batch_requests_sum{_RATE}))"
            f" / sum(rate(skewless_batch_requests_count{_RATE}))"
        },
    ),
    Panel(
        title="CPU and memory",
        meaning="Cores in use by each server process, and its resident memory.",
        unit="short",
        queries={
            "cores {{instance}} {{worker}}": f'rate(process_cpu_seconds_total{{job="skewless-server"}}{_RATE})',
            "GB {{instance}} {{worker}}": 'process_resident_memory_bytes{job="skewless-server"} / 1e9',
        },
    ),
    Panel(
        title="Log that waits, disk",
        meaning="Files of the logs that only this server has, and the free share of its disk.",
        unit="short",
        queries={
            "files {{instance}}": "skewless_log_files_waiting",
            "free share {{instance}}": "skewless_disk_free_ratio",
        },
    ),
    Panel(
        title="Stores",
        meaning="1: the database is down; 2: the online store is not asked; seconds of clock difference.",
        unit="short",
        queries={
            "database {{instance}}": "skewless_database_down",
            "breaker {{instance}}": "skewless_breaker_state",
            "clock {{instance}}": "skewless_clock_skew_seconds",
        },
    ),
)
FEATURES = (
    Panel(
        title="Age of views",
        meaning="Time since the watermark of a view, at its last read.",
        unit="s",
        queries={"{{view}}": "time() - max by (view) (skewless_view_watermark_seconds)"},
    ),
    Panel(
        title="Age of rows, median",
        meaning="Age of the rows that were read, at the time of the request.",
        unit="s",
        queries={"{{view}}": _quantile("skewless_feature_age_seconds", 0.5, "view")},
    ),
    Panel(
        title="Reads by status",
        meaning="PRESENT has values; compare the other shares with those of the training set.",
        unit="percentunit",
        queries={
            "{{view}} {{status}}": f"sum by (view, status) (rate(skewless_feature_reads_total{_RATE}))"
            f" / on (view) group_left {_READS}"
        },
    ),
    Panel(
        title="Events of streams",
        meaning="Accepted events a second.",
        unit="short",
        queries={"{{source}}": f"sum by (source) (rate(skewless_stream_accepted_total{_RATE}))"},
    ),
    Panel(
        title="Lag of streams",
        meaning="Messages that wait.",
        unit="short",
        queries={"{{source}}": "sum by (source) (skewless_stream_lag)"},
    ),
    Panel(
        title="Late, rejected, duplicate",
        meaning="Events a second; late ones count, the others do not.",
        unit="short",
        queries={
            "late {{source}}": f"sum by (source) (rate(skewless_stream_late_total{_RATE}))",
            "rejected {{source}}": f"sum by (source) (rate(skewless_stream_rejected_total{_RATE}))",
            "duplicate {{source}}": f"sum by (source) (rate(skewless_stream_duplicates_total{_RATE}))",
        },
    ),
)
MODELS = (
    Panel(
        title="Rows predicted",
        meaning="Rows a second, by model and version.",
        unit="short",
        queries={"{{model}} {{version}}": f"sum by (model, version) (rate(skewless_predictions_total{_RATE}))"},
    ),
    Panel(
        title="Certified difference",
        meaning="Largest difference of a margin from the training library, at load; 0: equal bits.",
        unit="short",
        queries={
            "{{model}} {{version}} {{runtime}}": "max by (model, version, runtime) (skewless_certified_difference)"
        },
    ),
    Panel(
        title="Stage of the model",
        meaning="Time of a batch in the model.",
        unit="s",
        queries={
            "p99": "histogram_quantile(0.99, sum by (le)"
            f' (rate(skewless_stage_seconds_bucket{{stage="predict"}}{_RATE})))'
        },
    ),
    Panel(
        title="Traffic policy",
        meaning="Share of the entities that the challenger serves; 0 without a rollout.",
        unit="percentunit",
        queries={"{{model}}": "max by (model) (skewless_traffic_share) or vector(0)"},
    ),
)
JOBS = (
    Panel(
        title="Runs",
        meaning="Finished runs in an hour, by job and state.",
        unit="short",
        queries={"{{exported_job}} {{state}}": "sum by (exported_job, state) (increase(skewless_runs_total[1h]))"},
    ),
    Panel(
        title="Time since the last success",
        meaning="Of each job.",
        unit="s",
        queries={
            "{{exported_job}}": "time() - max by (exported_job) (skewless_run_last_done_timestamp_seconds)",
        },
    ),
    Panel(
        title="Holder of the lease",
        meaning="1 for the scheduler that runs the jobs.",
        unit="short",
        queries={"{{instance}}": "skewless_scheduler_holder"},
    ),
    Panel(
        title="Duration of runs",
        meaning="Seconds of runs in an hour, by job.",
        unit="s",
        queries={"{{exported_job}}": "sum by (exported_job) (increase(skewless_run_seconds_total[1h]))"},
    ),
)
DASHBOARDS: Mapping[str, Sequence[Panel]] = {
    "serving": SERVING,
    "features": FEATURES,
    "models": MODELS,
    "jobs": JOBS,
}


def build(name: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """Return a dashboard in the format that Grafana imports."""
    return {
        "title": f"skewless: {name}",
        "uid": f"skewless-{name}",
        "tags": ["skewless"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}],
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for i, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def text_of(name: str) -> str:
    """Return the file of a dashboard."""
    return json.dumps(build(name, DASHBOARDS[name]), indent=1) + "\n"


def main() -> None:
    """Write all dashboards."""
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()
