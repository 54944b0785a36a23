"""The oracle of the change under load: windows by hand, and a reply that differs by one value is found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks import change_check
from benchmarks.change import Measurement
from benchmarks.change_check import check_values
from benchmarks.change_project import Payments, Shape
from benchmarks.change_traffic import Second, Sent
from benchmarks.contestant import ContestantError
from benchmarks.http_load import Address
from benchmarks.http_wire import body_of

MINUTE = 60_000_000
HOUR, DAY = 60 * MINUTE, 1_440 * MINUTE
T = 20_000 * DAY + 7 * HOUR + 2 * MINUTE
SHAPE = Shape(n_payments=3_000, n_cards=40, n_labels=10, rounds=1)


def payments(*rows: tuple[int, int, int]) -> Payments:
    card, cents, paid_at = np.array(rows, dtype=np.int64).T
    return Payments(card=card, cents=cents, paid_at=paid_at)


def test_a_window_begins_at_a_hop_and_ends_before_its_time() -> None:
    seen = payments(
        (1, 1_001, T - 7 * DAY - 3 * MINUTE),  # an hour's hop before 7 days: 7:00
        (1, 5, T - HOUR - 2 * MINUTE),  # five minutes' hop before an hour: 6:00
        (1, 3, T - 1),
        (1, 100, T),
        (2, 100, T - 1),
    ).features(1, T)
    assert seen == {
        "card_now__count_1h": 2.0, "card_now__sum_1h": 0.08, "card_now__mean_1h": 0.04,
        "card_now__count_1d": 2.0, "card_now__sum_1d": 0.08, "card_now__mean_1d": 0.04, "card_now__max_1d": 0.05,
        "card_now__count_7d": 2.0, "card_now__sum_7d": 0.08, "card_now__mean_7d": 0.04,
    }  # fmt: skip
    nothing = payments((1, 1, 0)).features(1, T)
    assert set(nothing.values()) == {0.0, None}


class PaymentServer:
    """Answers with the features of some payments."""

    def __init__(self, known: Payments) -> None:
        self.known = known

    def ask(self, address: Address, requests: Sequence[bytes]) -> list[bytes]:
        assert address == Address(port=1)
        asked = [json.loads(body_of(request)) for request in requests]
        return [json.dumps({"t_us": T, "predictions": self._predictions(body)}).encode() for body in asked]

    def _predictions(self, body: dict[str, Any]) -> list[dict[str, object]]:
        rows: list[dict[str, int]] = body["rows"]
        seen = [self.known.features(row["card_id"], T) for row in rows]
        if body["version"] == "000001":
            seen = [{name: value for name, value in each.items() if "max" not in name} for each in seen]
        return [{"features": each} for each in seen]


def test_values_are_compared_to_the_last_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SHAPE.history(T)
    server = PaymentServer(right)
    monkeypatch.setattr(change_check, "ask", server.ask)
    check_values(Address(port=1), right, SHAPE.n_cards)
    recent = np.flatnonzero((right.card < SHAPE.n_cards) & (right.paid_at > T - HOUR))[0]
    cents = right.cents.copy()
    cents[recent] += 1
    server.known = Payments(card=right.card, cents=cents, paid_at=right.paid_at)
    with pytest.raises(ContestantError, match=rf"card {right.card[recent]}: "):
        check_values(Address(port=1), right, SHAPE.n_cards)


def test_only_whole_windows_of_the_load_count_in_a_phase() -> None:
    windows = [Second(begun=i, ended=i + 1, answered=1, rate=i, p50=1, p99=1) for i in range(10)]
    sent = Sent(payments=payments((1, 1, 1)), seen=[(0.0, 0.3), (4.0, 0.1), (9.0, 0.2)])
    done = Measurement(laps={}, moments={"a": 2.5, "b": 6.0, "c": 6.1}, windows=windows, sent=sent)
    assert [window.rate for window in done.within("a", "b")] == [3, 4, 5]
    assert [window.rate for window in done.within("b", "c")] == [6]
    assert done.waits("a", "b") == [0.1]
