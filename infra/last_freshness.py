"""How new the data of each view was when it was last looked at: for metrics and ``status``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.durable import exclusive, replace_durable

_FILE = "freshness.json"


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """The newest data of a view.

    Args:
        hash: of the view.
        at_us: when it was looked at, UTC microseconds.
        limit_us: how old a row may be by the view's tag ``skewless.freshness``; 0: there is no limit.
        newest_us: time of the newest accepted event; None: there is none.
        sampled: entities whose online rows were read; None: the store did not answer.
        stale: of these, how many have a row older than the limit.
    """

    view: str
    hash: str
    at_us: int
    limit_us: int
    newest_us: int | None
    sampled: int | None = None
    stale: int | None = None

    @property
    def age_us(self) -> int | None:
        """Return how old the newest event was; None: there is none."""
        return None if self.newest_us is None else self.at_us - self.newest_us

    @property
    def is_late(self) -> bool:
        """Say whether the newest event was older than a row may be."""
        return self.limit_us > 0 and (self.age_us is None or self.age_us > self.limit_us)


def last_freshness(state: Path) -> dict[str, Freshness]:
    """Return what was last found of each view, by name; none where nothing was, or the file is damaged."""
    try:
        found = json.loads((state / _FILE).read_text())
        return {item["view"]: Freshness(**item) for item in found["views"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def save_freshness(state: Path, found: Iterable[Freshness]) -> None:
    """Keep what was found, beside what was last found of other views.

    Raises:
        StoreError: the disk refused.
    """
    with exclusive(state / "freshness.lock"):
        both = last_freshness(state) | {item.view: item for item in found}
        body = {"views": [asdict(item) for item in both.values()]}
        replace_durable(state / _FILE, json.dumps(body, indent=1).encode())
