"""``skewless get``: what is online, and the log's answer beside it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import from_us
from tests.worlds.command_line import done, run
from tests.worlds.trained import NOW

CARD = 9_007_199_254_740_993  # beyond 2^53


def newest(walked: Path, card: int) -> dict[str, object]:
    """Return what pyarrow finds newest of a card in the log."""
    (path,) = (walked / ".skewless" / "log" / "batch").glob("card_days-*/*.parquet")
    rows = pq.read_table(path)
    rows = rows.filter(pc.equal(rows["card_id"], card)).sort_by([("__event_ts", "descending"), ("__seq", "descending")])
    return dict(rows.slice(0, 1).to_pylist()[0])


def test_a_view_shows_status_age_origin_and_values(walked: Path) -> None:
    row = newest(walked, CARD)
    body = done("get", "card_days", "--key", f"card_id={CARD}", "--repo", walked)
    (view,) = body["views"]
    online = view["online"]
    assert view["keys"] == {"card_id": CARD}
    assert (online["run"], online["position"]) == (row["__run_id"], row["__seq"])
    assert online["age_s"] == (body["t_us"] - int(str(row["__event_ts"]))) / 1e6
    assert online["features"] == {name: row[name] for name in online["features"]}
    assert online["status"] in {"PRESENT", "EXPIRED"}
    shown = run("get", "card_days", "--key", f"card_id={CARD}", "--repo", walked).stdout
    assert all(name in shown for name in online["features"])


def test_as_of_now_the_log_says_what_the_store_holds(walked: Path) -> None:
    now = done("get", "card_days", "--key", f"card_id={CARD}", "--repo", walked)["t_us"]
    (view,) = done("get", "card_days", "--key", f"card_id={CARD}", "--as-of", str(now), "--repo", walked)["views"]
    online, known = view["online"], view["knowledge"]
    ages = {"age_s": 0, "watermark_age_s": 0}
    assert known | ages == online | ages
    assert view["event_time"]["features"] == online["features"]


def test_as_of_an_earlier_moment_the_log_says_what_stood_then(walked: Path) -> None:
    earlier = (from_us(NOW) - timedelta(days=20)).isoformat()
    words = ["--key", f"card_id={CARD}", "--key", "shop_id=shop-07", "--as-of", earlier]
    body = done("get", "fraud_features", *words, "--repo", walked)
    assert [view["view"] for view in body["views"]] == ["card_days", "shop_risk"]
    then = body["views"][0]["event_time"]
    assert then["status"] == "PRESENT"
    assert then["event_time"] <= earlier
    assert then["event_time"] < body["views"][0]["online"]["event_time"]


def test_an_unknown_entity_is_not_found(walked: Path) -> None:
    (view,) = done("get", "card_days", "--key", "card_id=-5", "--repo", walked)["views"]
    assert view["online"]["status"] == "NOT_FOUND"
    assert view["online"]["position"] is None
    assert set(view["online"]["features"].values()) == {None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", "--key", f"card_id={CARD}"], "name: is neither a feature view nor a service (got 'nothing')"),
        (["card_days"], "option --key: does not name the entity. Fix: give --key card_id=VALUE"),
        (["card_days", "--key", "card_id=x"], "key 'card_id': is not an integer (got 'x')"),
        (["card_days", "--key", "card_id=1", "--as-of", "noon"], "option --as-of: is not a time (got 'noon')"),
    ],
)
def test_what_cannot_be_asked_is_refused(walked: Path, words: list[str], said: str) -> None:
    answer = run("get", *words, "--repo", walked)
    assert answer.code == 6
    assert said in answer.stderr
