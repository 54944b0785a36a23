"""The last verdict of ``skewless parity`` on each view: for metrics, for promotion, for ``status``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from skewless.infra.storage.durable import exclusive, replace_durable

_FILE = "parity.json"


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


def last_parity(state: Path) -> dict[str, LastParity]:
    """Return the last verdict on each view, by name; none where it was never asked for, or the file is damaged."""
    try:
        found = json.loads((state / _FILE).read_text())
        return {item["view"]: LastParity(**item) for item in found["views"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def save_parity(state: Path, verdicts: Iterable[LastParity]) -> None:
    """Keep verdicts, beside the last ones on other views.

    Raises:
        StoreError: the disk refused.
    """
    with exclusive(state / "parity.lock"):
        both = last_parity(state) | {item.view: item for item in verdicts}
        body = {"views": [asdict(item) for item in both.values()]}
        replace_durable(state / _FILE, json.dumps(body, indent=1).encode())
