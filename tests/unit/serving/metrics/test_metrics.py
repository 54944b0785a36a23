"""The text that Prometheus reads, checked by Prometheus' own parser."""

from __future__ import annotations

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from skewless.contract.status import Status
from skewless.infra.models.runtimes.certification import Certificate
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import ViewCounts


def shown(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by name and labels."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for item in families for sample in item.samples
    }


def at(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_counts_are_told_apart_by_their_labels() -> None:
    metrics = Metrics()
    metrics.requests("a", "1", "ok").inc()
    metrics.requests("a", "1", "ok").inc(2)
    metrics.requests("a", "2", "ok").inc()
    samples = shown(metrics)
    assert samples[at("skewless_requests_total", model="a", version="1", outcome="ok")] == 3
    assert samples[at("skewless_requests_total", model="a", version="2", outcome="ok")] == 1


def test_a_label_may_hold_anything() -> None:
    metrics = Metrics()
    metrics.stale('a "b"\\\n}').inc()
    assert shown(metrics)[at("skewless_stale_reads_total", view='a "b"\\\n}')] == 1


def test_a_gauge_is_read_when_the_metrics_are() -> None:
    metrics = Metrics()
    waiting = [1, 2]
    metrics.queue_depth.watch(lambda: len(waiting))
    assert shown(metrics)[at("skewless_queue_depth")] == 2
    waiting.clear()
    assert shown(metrics)[at("skewless_queue_depth")] == 0


def test_a_certificate_is_shown_also_where_a_margin_was_no_number() -> None:
    metrics = Metrics()
    metrics.show_certificate(
        "m", "3", Certificate(runtime_id="r", rows=7, bit_equal=False, largest_difference=float("inf"))
    )
    samples = shown(metrics)
    labels = {"model": "m", "version": "3", "runtime": "r"}
    assert samples[at("skewless_certified_rows", **labels)] == 7
    assert samples[at("skewless_certified_bit_equal", **labels)] == 0
    assert samples[at("skewless_certified_difference", **labels)] == float("inf")


def test_a_version_that_was_unloaded_leaves_no_series() -> None:
    metrics = Metrics()
    certificate = Certificate(runtime_id="r", rows=1, bit_equal=True, largest_difference=0.0)
    for version in ("1", "2"):
        metrics.requests("m", version, "ok").inc()
        metrics.rows("m", version).inc()
        metrics.show_certificate("m", version, certificate)
    metrics.requests("other", "1", "ok").inc()
    metrics.forget("m", "1")
    kept = {
        (dict(labels)["model"], dict(labels)["version"]) for _, labels in shown(metrics) if "version" in dict(labels)
    }
    assert kept == {("m", "2"), ("other", "1")}


def test_rows_of_a_view_are_counted_alike_whether_few_or_many() -> None:
    few, many = Metrics(), Metrics()
    status = np.array([Status.PRESENT, Status.NOT_FOUND, Status.PRESENT, Status.EXPIRED] * 10, dtype=np.uint8)
    ages = np.linspace(0.05, 5_000, 30)
    ViewCounts(many, "v").count(status, ages, stale=3)
    counts = ViewCounts(few, "v")
    for place in range(10):
        counts.count(status[4 * place : 4 * place + 4], ages[3 * place : 3 * place + 3], stale=int(place < 3))
    samples = shown(many)
    assert samples[at("skewless_feature_reads_total", view="v", status="PRESENT")] == 20
    assert samples[at("skewless_stale_reads_total", view="v")] == 3
    same = {name for name, _ in samples if name.startswith("skewless_") and not name.endswith("_sum")}
    assert {key: value for key, value in samples.items() if key[0] in same} == {
        key: value for key, value in shown(few).items() if key[0] in same
    }
    total = at("skewless_feature_age_seconds_sum", view="v")
    np.testing.assert_allclose(samples[total], shown(few)[total], rtol=1e-12)


def test_process_cpu_and_memory_are_shown() -> None:
    samples = shown(Metrics())
    assert samples[at("process_cpu_seconds_total")] > 0
    assert samples[at("process_resident_memory_bytes")] > 1e6
