"""The metrics of several workers as those of one server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from skewless.serving.metrics.metrics import Metrics
from skewless.serving.peer_workers import PeerWorkers

_OK = 200


async def whole_server(metrics: Metrics, peers: PeerWorkers | None) -> bytes:
    """Return the metrics of all workers in Prometheus' text format; one that does not answer is left out."""
    if peers is None:
        return metrics.render()
    replies = await peers.ask("GET", "/metrics")
    texts = {peers.number: metrics.render()} | {r.worker: r.body for r in replies if r.status == _OK}
    return merge({worker: texts[worker].decode() for worker in sorted(texts)}).encode()


def merge(texts: Mapping[int, str]) -> str:
    r"""Return one text for several workers: counters and histograms are summed, gauges told apart by ``worker``.

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
        place, _, value = line.rpartition(" ")
        if self.type.endswith(" gauge"):
            self.samples[_labelled(place, worker)] = float(value)
        else:
            self.samples[place] = self.samples.get(place, 0.0) + float(value)

    def lines(self) -> Iterable[str]:
        return [self.text, self.type, *(f"{place} {value!r}" for place, value in self.samples.items())]


def _labelled(place: str, worker: int) -> str:
    name, brace, labels = place.partition("{")
    return f'{name}{{worker="{worker}"{"," if brace else "}"}{labels}'
