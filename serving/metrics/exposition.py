"""Metrics of several workers, merged into those of one server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from skewless.serving.metrics.metrics import Metrics
from skewless.serving.peer_workers import PeerWorkers

_OK = 200


async def render_all_workers(metrics: Metrics, peers: PeerWorkers | None) -> bytes:
    """Return the metrics of all workers in Prometheus' text format, without workers that do not answer."""
    await metrics.refresh()
    if peers is None:
        return metrics.render()
    replies = await peers.send_request("GET", "/metrics")
    texts = {peers.number: metrics.render()} | {reply.worker: reply.body for reply in replies if reply.status == _OK}
    return merge({worker: texts[worker].decode() for worker in sorted(texts)}).encode()


def merge(texts: Mapping[int, str]) -> str:
    r"""Return one text for several workers: counters and histograms are summed, gauges get the label ``worker``.

    >>> one = "# HELP n_total N\n# TYPE n_total counter\nn_total 1.0\n# HELP g G\n# TYPE g gauge\ng 7.0\n"
    >>> print(merge({0: one, 1: one}), end="")
    # HELP n_total N
    # TYPE n_total counter
    n_total 2.0
    # HELP g G
    # TYPE g gauge
    g{worker="0"} 7.0
    g{worker="1"} 7.0
    """
    families: dict[str, _Family] = {}
    for worker, text in texts.items():
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                family = families.setdefault(name, _Family(text=line))
            elif line.startswith("# TYPE "):
                family.type = line
            else:
                family.add(worker, line)
    return "".join(f"{line}\n" for family in families.values() for line in family.lines())


@dataclass(kw_only=True)
class _Family:
    text: str
    type: str = ""
    samples: dict[str, float] = field(default_factory=dict)

    def add(self, worker: int, line: str) -> None:
        series_name, _, value = line.rpartition(" ")
        if self.type.endswith(" gauge"):
            self.samples[_add_worker_label(series_name, worker)] = float(value)
        else:
            self.samples[series_name] = self.samples.get(series_name, 0.0) + float(value)

    def lines(self) -> Iterable[str]:
        return [self.text, self.type, *(f"{series_name} {value!r}" for series_name, value in self.samples.items())]


def _add_worker_label(series_name: str, worker: int) -> str:
    name, brace, labels = series_name.partition("{")
    return f'{name}{{worker="{worker}"{"," if brace else "}"}{labels}'
