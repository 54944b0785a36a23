"""Drift of a trained project: what is asked as in training is steady, what is not is found, kept and alerted of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import to_us
from skewless.contract.errors import PackageError
from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.models.drift import ALERT, MOVED, check_drift, drift_reports, latest_drift
from tests.worlds.trained import MODEL, Sandbox

HOUR, DAY = 3_600_000_000, 86_400_000_000


def payments(place: Sandbox, n: int, *, odd: bool = False) -> list[dict[str, Any]]:
    """Return n payments as they were in training; odd ones are larger, and all at midnight."""
    rows = pq.read_table(place.repo / "data/payments.parquet").to_pylist()
    chosen = np.random.default_rng(1).choice(len(rows), n, replace=False)
    return [
        {
            "card_id": rows[i]["card_id"],
            "shop_id": rows[i]["shop_id"],
            "amount": rows[i]["amount"] * (100 if odd else 1),
            "paid_at": to_us(rows[i]["paid_at"]) // DAY * DAY if odd else to_us(rows[i]["paid_at"]),
        }
        for i in chosen
    ]


def test_what_is_like_training_is_steady(place: Sandbox) -> None:
    place.predict(payments(place, 400))
    place.wait(1)
    report = check_drift(place.project, MODEL)
    assert (report.rows, report.verdict, report.drifted, report.moved) == (400, "steady", [], [])
    assert {column.name for column in report.features} == set(place.model.assembler.labels)
    assert report.score is not None
    assert report.score.rows == 400
    assert open_alerts(ProjectState(place.state)) == []


def test_a_planted_shift_is_found_kept_and_alerted_of_until_it_is_over(place: Sandbox) -> None:
    place.predict(payments(place, 400, odd=True))
    place.wait(1)
    report = check_drift(place.project, MODEL)
    assert set(report.drifted) == {"payment_time__amount_ratio", "payment_time__hour"}
    assert report.verdict == "drifted"
    assert json.loads(json.dumps(latest_drift(place.project, MODEL))) == json.loads(json.dumps(report.as_dict()))
    (alert,) = [item for item in open_alerts(ProjectState(place.state)) if item.name == ALERT]
    assert (alert.subject, alert.evidence["features"]) == (MODEL, report.drifted)
    place.wait(2 * 86_400)
    place.predict(payments(place, 400))
    place.wait(1)
    assert check_drift(place.project, MODEL).verdict == "steady"
    assert [item for item in open_alerts(ProjectState(place.state)) if item.name in {ALERT, MOVED}] == []
    assert [window["verdict"] for window in drift_reports(place.project, MODEL)] == ["drifted", "steady"]


def test_predictions_that_read_the_same_row_are_counted_as_such(place: Sandbox) -> None:
    asked = payments(place, 50)
    place.predict([{**row, "shop_id": "shop-01" if i < 40 else "shop-02"} for i, row in enumerate(asked)])
    place.predict([{**row, "shop_id": "nowhere"} for row in asked])
    place.wait(1)
    repeats = {column.name: column.repeats for column in check_drift(place.project, MODEL, dry_run=True).features}
    assert repeats["shop_risk__refund_share"] == (40**2 + 10**2 + 50) / 100
    assert repeats["payment_time__hour"] == 1.0


def test_a_window_holds_what_was_asked_in_it(place: Sandbox) -> None:
    place.predict(payments(place, 30))
    place.wait(3_600)
    begun = place.now_us()
    place.predict(payments(place, 20))
    place.wait(1)
    assert check_drift(place.project, MODEL, window_us=HOUR, dry_run=True).rows == 20
    assert check_drift(place.project, MODEL, window_us=2 * HOUR, dry_run=True).rows == 50
    assert check_drift(place.project, MODEL, until_us=begun, dry_run=True).rows == 30
    assert check_drift(place.project, MODEL, dry_run=True).verdict == "too_few_rows"
    assert latest_drift(place.project, MODEL) is None


def test_no_prediction_says_nothing(place: Sandbox) -> None:
    report = check_drift(place.project, MODEL)
    assert (report.rows, report.verdict) == (0, "too_few_rows")
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["features"][0]["limits"]["psi"] is None


def test_an_altered_package_is_refused(place: Sandbox) -> None:
    (place.project.packages.root / MODEL / "000001" / "profile.json").write_text("{}")
    with pytest.raises(PackageError, match=r"profile\.json"):
        check_drift(place.project, MODEL)
