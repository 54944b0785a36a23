"""What each runtime of a model takes, may do and does, as Prometheus reads it."""

from __future__ import annotations

import gc

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from skewless.infra.models.runtimes.certification import Certificate
from skewless.infra.models.runtimes.choice import RuntimeTrial
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from skewless.serving.metrics.metrics import Metrics
from tests.unit.serving.zeros import Zeros

EXACT = Certificate(runtime_id="own-1", rows=718, bit_equal=True, largest_difference=0.0)
SECOND = Certificate(runtime_id="second-1", rows=718, bit_equal=True, largest_difference=0.0)
TRIED = (
    RuntimeTrial(runtime="own-1", role="own", certificate=EXACT, rows=64, seconds=4e-4),
    RuntimeTrial(runtime="second-1", role="chosen", certificate=SECOND, rows=64, seconds=1e-4),
    RuntimeTrial(runtime="third", role="refused", reason="no device"),
)


def shown(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples of runtimes: by name, then by version and runtime."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name.startswith(("skewless_runtime_", "skewless_certified_")):
                labels = tuple(sample.labels[name] for name in ("version", "runtime"))
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_a_model_that_was_loaded_shows_what_was_tried() -> None:
    metrics = Metrics()
    metrics.show_model("m", "1", EXACT, TRIED, Zeros("own-1"))
    samples = shown(metrics)
    assert samples["skewless_runtime_seconds"] == {("1", "own-1"): 4e-4, ("1", "second-1"): 1e-4}
    assert samples["skewless_runtime_refused"] == {("1", "third"): 1.0}
    assert samples["skewless_certified_rows"] == {("1", "own-1"): 718, ("1", "second-1"): 718}
    assert "skewless_runtime_failures_total" not in samples


def test_a_model_of_one_runtime_shows_its_certificate_alone() -> None:
    metrics = Metrics()
    metrics.show_model("m", "1", EXACT, (), Zeros("own-1"))
    samples = shown(metrics)
    assert set(samples) == {f"skewless_certified_{name}" for name in ("rows", "bit_equal", "difference")}


def test_the_failures_of_a_chosen_runtime_are_counted() -> None:
    own, second = Zeros("own-1"), Zeros("second-1")
    runtime = FallbackRuntime(second, own)
    metrics = Metrics()
    metrics.show_model("m", "1", EXACT, TRIED, runtime)
    runtime.score(np.zeros((1, 2)))
    assert shown(metrics)["skewless_runtime_failures_total"] == {("1", "second-1"): 0}
    second.fails = True
    runtime.score(np.zeros((70, 2)))
    assert shown(metrics)["skewless_runtime_failures_total"] == {("1", "second-1"): 1}


def test_a_version_that_was_unloaded_leaves_no_series_and_is_not_kept() -> None:
    metrics = Metrics()
    runtimes = {version: FallbackRuntime(Zeros("second-1"), Zeros("own-1")) for version in "12"}
    for version, runtime in runtimes.items():
        metrics.show_model("m", version, EXACT, TRIED, runtime)
    assert len(shown(metrics)["skewless_runtime_failures_total"]) == 2
    metrics.forget("m", "1")
    samples = shown(metrics)
    assert {labels[0] for by_labels in samples.values() for labels in by_labels} == {"2"}
    # One that nobody uses any more is no reason to keep it, nor to fail.
    del runtimes, runtime
    gc.collect()
    assert shown(metrics)["skewless_runtime_failures_total"] == {("2", "second-1"): 0}
