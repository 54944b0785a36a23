"""What servers counted of each version under a traffic policy, in files that a rollout's controller reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skewless.contract.score_differences import ScoreDifferences
from skewless.infra.storage.durable import make_folder

LATENCY_EDGES = (*(0.0005 * 2 ** (step / 4) for step in range(57)),)  # 0.5 ms to 8 s, four a doubling


class Histogram(NamedTuple):
    """Values counted by size.

    Args:
        edges: upper ends, ascending; a value at an end belongs to the bucket below it.
        counts: of each bucket, one more than edges: the last one has no end.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def n(self) -> int:
        """Return how many values were counted."""
        return sum(self.counts)

    def quantile(self, at: float) -> float:
        """Return the upper end of the bucket that holds a quantile; NaN without values, infinity in the last one.

        >>> Histogram((1.0, 2.0), (9, 1, 0)).quantile(0.99)
        2.0
        """
        if not self.n:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.counts), at * self.n))
        return self.edges[place] if place < len(self.edges) else float("inf")

    def plus(self, other: Histogram) -> Histogram:
        """Return both together; those without edges count nothing."""
        if not self.edges or not other.edges:
            return self if self.edges else other
        return Histogram(self.edges, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


def score_edges() -> tuple[float, ...]:
    """Return ends of buckets that suit scores of any scale: ten a decade, both signs, and 0 to 1 in 40.

    They are the same for all models, so that versions can be compared; there are more than a small sample fills:
    join neighbours before comparing shares.
    """
    sizes = [10 ** (step / 10) for step in range(-60, 91)]
    linear = [step / 40 for step in range(41)]
    return tuple(sorted({*sizes, *(-size for size in sizes), *linear}))


_NOTHING = Histogram((), ())


@dataclass(frozen=True, kw_only=True)
class RolloutCounts:
    """What was counted of one version under one policy, in all roles it has there.

    Args:
        requests: that it answered, those among them that failed included; parts of requests count as requests.
        failed: by the server's doing, or too late for their deadline; what a caller did wrong does not count.
        rows: predicted.
        latency: seconds of requests that were answered; of a shadow nothing is counted.
        scores: of rows; of several outputs the largest.
        missing: feature values that were NaN.
        values: feature values in all.
        by_status: per view, rows by the name of their status.
        differences: from what was answered, where it was a shadow.
        at_us: the latest count, microseconds; 0: nothing was counted.
    """

    requests: int = 0
    failed: int = 0
    rows: int = 0
    latency: Histogram = _NOTHING
    scores: Histogram = _NOTHING
    missing: int = 0
    values: int = 0
    by_status: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    differences: ScoreDifferences = field(default_factory=ScoreDifferences)
    at_us: int = 0

    def __add__(self, other: RolloutCounts) -> RolloutCounts:
        """Return what two servers counted, together."""
        return RolloutCounts(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            rows=self.rows + other.rows,
            latency=self.latency.plus(other.latency),
            scores=self.scores.plus(other.scores),
            missing=self.missing + other.missing,
            values=self.values + other.values,
            by_status=_added(self.by_status, other.by_status),
            differences=self.differences + other.differences,
            at_us=max(self.at_us, other.at_us),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = self.differences
        return {
            **{name: getattr(self, name) for name in ("requests", "failed", "rows", "missing", "values", "at_us")},
            "latency": list(self.latency),
            "scores": list(self.scores),
            "by_status": self.by_status,
            "differences": {"rows": found.rows, "total": found.total, "pairs": found.pairs.tolist()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RolloutCounts:
        """Build vitals from what ``as_dict`` returned."""
        found = data["differences"]
        pairs = np.array(found["pairs"], dtype=np.float64).reshape(-1, 2)
        histograms = {name: Histogram(*map(tuple, data[name])) for name in ("latency", "scores")}
        differences = ScoreDifferences(rows=found["rows"], total=found["total"], pairs=pairs)
        return cls(**{**data, **histograms, "differences": differences})


class PolicyCounts(NamedTuple):
    """What one server counted of a model: since it saw the policy, by version."""

    policy: int
    versions: Mapping[str, RolloutCounts]


def read_vitals(state: Path, model: str, policy: int) -> dict[str, RolloutCounts]:
    """Return what all server processes counted of a model under one policy, by version.

    What processes counted that are gone by now is in it. It is as old as ``at_us`` says: up to 2 s while servers run.

    Args:
        state: the project's state folder, shared by all servers.
        policy: its number; what was answered under another one does not count.
    """
    found: dict[str, RolloutCounts] = {}
    for _, models in _files(state):
        counted = models.get(model)
        if counted is not None and counted.policy == policy:
            for version, vitals in counted.versions.items():
                found[version] = found.get(version, RolloutCounts()) + vitals
    return found


def write_vitals(path: Path, models: Mapping[str, PolicyCounts]) -> None:
    """Put what a server counted in the place of what it wrote before; a reader sees one or the other.

    It is not waited for the disk: after a power cut counting begins anew.

    Raises:
        OSError: the disk refused.
    """
    make_folder(path.parent)
    data = {
        model: {"policy": counted.policy, "versions": {key: one.as_dict() for key, one in counted.versions.items()}}
        for model, counted in models.items()
    }
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(json.dumps(data))
    staging.replace(path)


def sweep_vitals(state: Path, policies: Mapping[str, int]) -> None:
    """Remove files that count nothing under a policy in force; servers that run write theirs again.

    Args:
        policies: the numbers of those in force, by model.
    """
    for path, models in _files(state):
        if not any(policies.get(model) == counted.policy for model, counted in models.items()):
            path.unlink(missing_ok=True)


def vitals_folder(state: Path) -> Path:
    """Return where servers write their vitals."""
    return state / "vitals"


def _files(state: Path) -> Iterator[tuple[Path, dict[str, PolicyCounts]]]:
    for path in sorted(vitals_folder(state).glob("*.json")):
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # its server has just ended
        except ValueError:
            data = {}  # a power cut
        yield path, {model: _counted(counted) for model, counted in data.items()}


def _counted(data: Mapping[str, Any]) -> PolicyCounts:
    return PolicyCounts(
        data["policy"], {version: RolloutCounts.from_dict(one) for version, one in data["versions"].items()}
    )


def _added(one: Mapping[str, Mapping[str, int]], other: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {
        view: {
            status: one.get(view, {}).get(status, 0) + other.get(view, {}).get(status, 0)
            for status in {**one.get(view, {}), **other.get(view, {})}
        }
        for view in {**one, **other}
    }
