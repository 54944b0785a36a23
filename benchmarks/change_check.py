"""What was served is what the events say: compared with plain Python, and replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from benchmarks.change_project import MODEL, VIEW, Payments
from benchmarks.contestant import ContestantError
from benchmarks.http_load import Address, ask
from benchmarks.http_wire import post
from benchmarks.meter import Meter

_COMPARED = 200


def check_values(address: Address, payments: Payments, n_cards: int) -> None:
    """Compare what some cards' windows hold, in the old and in the new version, with the payments.

    Raises:
        ContestantError: a value differs, or is missing.
    """
    cards = [*range(_COMPARED // 2), *np.random.default_rng(15).integers(0, n_cards, _COMPARED // 2).tolist()]
    for version in ("000001", "000002"):
        body = {"model": MODEL, "version": version, "rows": [{"card_id": card} for card in cards], "features": True}
        (reply,) = ask(address, [post("/predict", orjson.dumps(body))])
        told = orjson.loads(reply)
        for card, row in zip(cards, told["predictions"], strict=True):
            expected = payments.features(card, told["t_us"])
            if version == "000001":
                del expected[f"{VIEW}__max_1d"]
            if row["features"] != expected:
                raise ContestantError(f"version {version}, card {card}: {row['features']}, but it is {expected}")


def prove(meter: Meter, *, repo: str, least: int) -> str:
    """Replay the whole log: an entrant.

    Args:
        least: how many predictions must have been logged.
    """
    from skewless import Project  # noqa: PLC0415 - an entrant's own

    with Project(Path(repo), redis_url="redis://127.0.0.1:1") as project, meter.lap():
        report = project.replay()
    assert report.ok, report.lines()
    assert report.compared >= least, report.compared
    return ""
