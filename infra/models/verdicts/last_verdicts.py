"""Stores the last parity verdict and freshness of each view, for metrics, promotion and ``status``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from skewless.contract.clock import from_us
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState


@dataclass(frozen=True, kw_only=True)
class LastParity:
    """The result of the last comparison of a view's online values with the log.

    Args:
        hash: hash of the view.
        at_us: time of the comparison, microseconds.
        compared: entities that were compared.
        mismatches: entities that differ from the log; repaired entities are not counted.
        by_cause: mismatches by cause.
        unavailable: entities that the store could not read.
    """

    view: str
    hash: str
    at_us: int
    compared: int
    mismatches: int
    by_cause: Mapping[str, int] = field(default_factory=dict)
    unavailable: int = 0


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """The age of a view's latest data.

    Args:
        hash: hash of the view.
        at_us: time of the measurement, UTC microseconds.
        limit_us: largest age of a row by the view's tag ``skewless.freshness``; 0: no limit.
        newest_us: time of the latest accepted event; None: there is none.
        watermark_us: watermark of the online data; None: unknown, or the store did not answer.
        windowed: whether it is a windowed view; its age is that of its watermark, even if no event arrived for long.
        sampled: entities whose online rows were read; None: the store did not answer.
        stale: sampled entities with a row older than the limit.
    """

    view: str
    hash: str
    at_us: int
    limit_us: int
    newest_us: int | None
    sampled: int | None = None
    stale: int | None = None
    watermark_us: int | None = None
    windowed: bool = False

    @property
    def age_us(self) -> int | None:
        """Return the age of the latest event; None: there is none."""
        return None if self.newest_us is None else self.at_us - self.newest_us

    @property
    def watermark_age_us(self) -> int | None:
        """Return the age of the watermark; None: unknown."""
        return None if self.watermark_us is None else max(0, self.at_us - self.watermark_us)

    @property
    def is_frozen(self) -> bool:
        """Return whether the last update of the view is older than the limit."""
        return self.limit_us > 0 and (self.watermark_age_us or 0) > self.limit_us

    @property
    def is_late(self) -> bool:
        """Return whether the view's data is older than the limit."""
        if self.windowed or self.limit_us == 0:
            return self.is_frozen
        return self.is_frozen or self.age_us is None or self.age_us > self.limit_us

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: times in ISO 8601, durations in seconds."""
        durations = {"age_s": self.age_us, "watermark_age_s": self.watermark_age_us, "limit_s": self.limit_us or None}
        return {
            "view": self.view,
            "newest": None if self.newest_us is None else from_us(self.newest_us).isoformat(timespec="seconds"),
            **{name: None if duration is None else duration / 1e6 for name, duration in durations.items()},
            "sampled": self.sampled,
            "stale": self.stale,
            "late": self.is_late,
        }


_V = TypeVar("_V", LastParity, Freshness)
_KINDS = {LastParity: "parity_verdicts", Freshness: "freshness"}
_NAME = "project"


def read_last(state: ProjectState, kind: type[_V]) -> dict[str, _V]:
    """Return the last result of a kind for each view, by name; empty without one, or if another release wrote it.

    Raises:
        StoreError: the database is unavailable.
    """
    body = Documents(state.database, _KINDS[kind]).get(_NAME) or {"views": []}
    try:
        return {item["view"]: kind(**item) for item in body["views"]}
    except (KeyError, TypeError):
        return {}


def save_last(state: ProjectState, kind: type[_V], items: Iterable[_V]) -> None:
    """Store results of a kind; the last results of other views stay.

    Raises:
        StoreError: the database is unavailable.
    """
    # Several processes check different views at the same time.
    with state.database.transaction():
        by_view = read_last(state, kind) | {item.view: item for item in items}
        Documents(state.database, _KINDS[kind]).put(_NAME, {"views": [asdict(item) for item in by_view.values()]})
