"""What was last found of each view, its parity and its freshness: for metrics, for promotion, for ``status``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skewless.contract.clock import from_us
from skewless.infra.storage.durable import hold_lock, replace_durable


@dataclass(frozen=True, kw_only=True)
class LastParity:
    """What was found when the states of a view were last held against the log.

    Args:
        hash: of the view.
        at_us: when, microseconds.
        compared: entities that were compared.
        mismatches: entities that are not what the log says; those that were repaired are not counted.
        by_cause: the same by cause.
        unavailable: entities that the store could not answer for.
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
    """The newest data of a view.

    Args:
        hash: of the view.
        at_us: when it was looked at, UTC microseconds.
        limit_us: how old a row may be by the view's tag ``skewless.freshness``; 0: there is no limit.
        newest_us: time of the newest accepted event; None: there is none.
        watermark_us: up to when all that had arrived is online; None: unknown, or the store did not answer.
        windowed: whether it is a windowed view, which is as old as its watermark, however long nothing happened.
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
    watermark_us: int | None = None
    windowed: bool = False

    @property
    def age_us(self) -> int | None:
        """Return how old the newest event was; None: there is none."""
        return None if self.newest_us is None else self.at_us - self.newest_us

    @property
    def watermark_age_us(self) -> int | None:
        """Return how long ago all that had arrived was online; None: unknown."""
        return None if self.watermark_us is None else max(0, self.at_us - self.watermark_us)

    @property
    def is_frozen(self) -> bool:
        """Say whether nobody has brought the view up to date for longer than a row may be old."""
        return self.limit_us > 0 and (self.watermark_age_us or 0) > self.limit_us

    @property
    def is_late(self) -> bool:
        """Say whether what the view holds is older than a row may be."""
        if self.windowed or self.limit_us == 0:
            return self.is_frozen
        return self.is_frozen or self.age_us is None or self.age_us > self.limit_us

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: times in ISO 8601, lengths in seconds."""
        lengths = {"age_s": self.age_us, "watermark_age_s": self.watermark_age_us, "limit_s": self.limit_us or None}
        return {
            "view": self.view,
            "newest": None if self.newest_us is None else from_us(self.newest_us).isoformat(timespec="seconds"),
            **{name: None if length is None else length / 1e6 for name, length in lengths.items()},
            "sampled": self.sampled,
            "stale": self.stale,
            "late": self.is_late,
        }


_V = TypeVar("_V", LastParity, Freshness)


def last_parity(state: Path) -> dict[str, LastParity]:
    """Return the last verdict on each view, by name; none where it was never asked for, or the file is damaged."""
    return _read(state / "parity.json", LastParity)


def last_freshness(state: Path) -> dict[str, Freshness]:
    """Return what was last found of each view, by name; none where nothing was, or the file is damaged."""
    return _read(state / "freshness.json", Freshness)


def save_parity(state: Path, verdicts: Iterable[LastParity]) -> None:
    """Keep verdicts, beside the last ones on other views.

    Raises:
        StoreError: the disk refused.
    """
    _save(state / "parity.json", LastParity, verdicts)


def save_freshness(state: Path, found: Iterable[Freshness]) -> None:
    """Keep what was found, beside what was last found of other views.

    Raises:
        StoreError: the disk refused.
    """
    _save(state / "freshness.json", Freshness, found)


def _read(path: Path, kind: type[_V]) -> dict[str, _V]:
    try:
        return {item["view"]: kind(**item) for item in json.loads(path.read_text())["views"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _save(path: Path, kind: type[_V], found: Iterable[_V]) -> None:
    with hold_lock(path.with_suffix(".lock")):
        both = _read(path, kind) | {item.view: item for item in found}
        body = {"views": [asdict(item) for item in both.values()]}
        replace_durable(path, json.dumps(body, indent=1).encode())
