"""Where a server's time goes, by its own histograms: sums and counts before and after a load."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.http_load import Address, ask
from benchmarks.http_wire import get

STAGES = ("parse", "queue", "redis", "assemble", "predict", "encode")
_STAGE, _ALL, _BATCHES = "skewless_stage_seconds", "skewless_request_seconds", "skewless_batch_requests"
_DROPPED = "skewless_log_dropped"


def observed(address: Address, key: str) -> dict[str, tuple[float, float]]:
    """Return the sum and the count of each stage's histogram, of ``all`` and of ``batch``."""
    return read_sums(_page(address, key))


def log_dropped(address: Address, key: str) -> int:
    """Return how many predictions the log could not keep."""
    families = text_string_to_metric_families(_page(address, key))
    return int(sum(sample.value for family in families if family.name == _DROPPED for sample in family.samples))


def read_sums(page: str) -> dict[str, tuple[float, float]]:
    r"""Return what ``observed`` returns from the text of the metrics.

    >>> page = "# TYPE skewless_request_seconds histogram\nskewless_request_seconds_sum 2.5\n"
    >>> read_sums(page + "skewless_request_seconds_count 5\n")
    {'all': (2.5, 5.0)}
    """
    found: dict[str, dict[str, float]] = {}
    names = {_STAGE: "", _ALL: "all", _BATCHES: "batch"}
    for family in text_string_to_metric_families(page):
        if family.name not in names:
            continue
        for sample in family.samples:
            what = sample.name.removeprefix(family.name)
            if what in {"_sum", "_count"}:
                found.setdefault(names[family.name] or sample.labels["stage"], {})[what] = float(sample.value)
    return {name: (values["_sum"], values["_count"]) for name, values in found.items()}


def means(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Return the mean of what was observed between two readings, and how often it was.

    >>> means({"all": (1.0, 2.0)}, {"all": (3.0, 6.0)})
    {'all': (0.5, 4.0)}
    """
    told = {}
    for name, (total, count) in after.items():
        earlier, times = before.get(name, (0.0, 0.0))
        if count > times:
            told[name] = ((total - earlier) / (count - times), count - times)
    return told


def _page(address: Address, key: str) -> str:
    (page,) = ask(address, [get("/metrics", {"authorization": f"Bearer {key}"})])
    return page.decode()
