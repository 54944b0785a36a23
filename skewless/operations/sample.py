"""The sample data of new projects: made up, the same at any hour of any day.

All times count from the last midnight (UTC), and labels become known at midnights only: what a project trains, and so
every number of its first tour, does not depend on the hour at which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

SECOND = 1_000_000  # microseconds
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
Integers = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

FIRST_CARD = 9_007_199_254_740_993  # above 2^53, where a float64 would lose digits
_CARDS, _SHOPS, _FRAUD_DAYS, _PAYMENTS, _BURSTS, _REQUESTS = 400, 200, 60, 14_000, 110, 500
_COUNTRIES = np.array(["DE", "FR", "PL", None], dtype=object)
_LATE_SHARE, _NULL_SHARE, _DRIFT = 0.03, 0.05, 2.5
# Before midnight: windows of an hour are empty all day long, at any hour.
_PAYMENTS_END, _STREAM_END = 26 * HOUR, 2 * HOUR
_REPEATED = 6
_LINES, _STATIONS, _DELAY_DAYS, _ARRIVALS = 8, 30, 40, 9_000
_ARRIVALS_END = 2 * HOUR  # windows of an hour are empty all day long, at any hour
_JAM, _JAM_SHARE, _WORKS_SHARE = 8 * HOUR, 0.15, 0.1
_CUSTOMERS, _CHURN_DAYS, _LABEL_DAYS = 300, 120, 30
_PLANS = np.array(["basic", "family", "premium"], dtype=object)


def fraud_tables(midnight: int) -> dict[str, pa.Table]:
    """Return 60 days of payments of cards at shops, by file name, which end some hours before a midnight, microseconds.

    Stolen cards pay several times within an hour, which only windows over the stream can show. Some events arrive hours
    late. The requests of ``requests.parquet`` have other amounts than the training data: drift, planted to be found.
    """
    rng = np.random.default_rng(7)
    start = midnight - _FRAUD_DAYS * DAY
    risk = rng.beta(2, 8, _SHOPS)
    means = rng.gamma(4, 10, _CARDS)
    card_days = _card_days(rng, start, means)
    shop_risk = _shop_risk(rng, start, risk)
    payments, labels = _payments(rng, start, means, risk)
    events = payments["paid_at"].cast(pa.int64()).to_numpy()
    history, stream = events < midnight - _PAYMENTS_END, events >= midnight - _PAYMENTS_END
    return {
        "card_days.parquet": card_days,
        "shop_risk.parquet": shop_risk,
        "payments.parquet": payments.filter(pa.array(history)),
        "stream.parquet": _stream(payments.filter(pa.array(stream))),
        "labels.parquet": labels,
        "requests.parquet": _requests(rng, midnight, means),
    }


def _card_days(rng: np.random.Generator, start: int, means: Real) -> pa.Table:
    card, day = grid(_CARDS, _FRAUD_DAYS)
    missing = (rng.random(len(card)) < _NULL_SHARE) & (card > 0)
    return pa.table(
        {
            "card_id": card + FIRST_CARD,
            "event_time": times(start + day * DAY),
            "created": times(start + day * DAY + HOUR),
            "payments_7d": rng.poisson(5, len(card)),
            "mean_amount_7d": pa.array(means[card] * rng.uniform(0.8, 1.2, len(card)), mask=missing),
            "country": pa.array(_COUNTRIES[card % len(_COUNTRIES)], pa.string()),
        }
    )


def _shop_risk(rng: np.random.Generator, start: int, risk: Real) -> pa.Table:
    shop, day = grid(_SHOPS, _FRAUD_DAYS)
    share = np.clip(risk[shop] + rng.normal(0, 0.02, len(shop)), 0, 1)
    return pa.table(
        {"shop_id": names("shop-{:02d}", shop), "event_time": times(start + day * DAY), "refund_share": share}
    )


def _payments(rng: np.random.Generator, start: int, means: Real, risk: Real) -> tuple[pa.Table, pa.Table]:
    """Return events and labels of ordinary payments and of bursts of stolen cards, in the order of their times."""
    end = start + _FRAUD_DAYS * DAY - _STREAM_END
    card, shop = rng.integers(0, _CARDS, _PAYMENTS), rng.integers(0, _SHOPS, _PAYMENTS)
    paid_at = rng.integers(start + 2 * DAY, end, _PAYMENTS)
    amount = means[card] * rng.gamma(2, 0.5, _PAYMENTS)
    odds = -5.0 + 6 * risk[shop] + 1.2 * (amount > 2 * means[card])
    fraud = rng.random(_PAYMENTS) < chance_of(odds)
    stolen = _bursts(rng, start, end, means)
    joined = [np.concatenate(pair) for pair in zip((card, shop, paid_at, amount, fraud), stolen, strict=True)]
    order = np.argsort(joined[2], kind="stable")
    card, shop, paid_at, amount, fraud = (column[order] for column in joined)
    shared = {
        "card_id": card + FIRST_CARD,
        "shop_id": names("shop-{:02d}", shop),
        "amount": np.round(amount, 2),
        "paid_at": times(paid_at),
    }
    received_at = paid_at + lateness(rng, len(paid_at), _LATE_SHARE, 6 * HOUR)
    events = {
        "payment_id": names("p-{:06d}", np.arange(len(paid_at))),
        **shared,
        "received_at": times(received_at),
    }
    labels = {**shared, "fraud": fraud.astype(np.int64), "known_at": times(next_midnight(paid_at, 1))}
    return pa.table(events), pa.table(labels)


def _stream(events: pa.Table) -> pa.Table:
    """Return events as a stream sends them: some twice, and one that has neither a card nor a shop."""
    sent = events.drop_columns(["received_at"])
    again = sent.slice(0, _REPEATED)
    nobody = pa.table({name: again[name].slice(0, 1) for name in ("payment_id", "amount", "paid_at")})
    return pa.concat_tables(
        [sent, again, nobody.set_column(0, "payment_id", [["p-broken"]])], promote_options="default"
    )


def _bursts(
    rng: np.random.Generator, start: int, end: int, means: Real
) -> tuple[Integers, Integers, Integers, Real, Integers]:
    """Return payments of stolen cards: four to eight within an hour, at any shop, of rising amounts."""
    sizes = rng.integers(4, 9, _BURSTS)
    burst = np.repeat(np.arange(_BURSTS), sizes)
    place = np.arange(len(burst)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    card = rng.integers(0, _CARDS, _BURSTS)[burst]
    first = rng.integers(start + 2 * DAY, end - HOUR, _BURSTS)[burst]
    paid_at = first + place * rng.integers(3 * MINUTE, 7 * MINUTE, len(burst))
    amount = means[card] * rng.gamma(2, 0.5, len(burst)) * (1 + 0.3 * place)
    fraud = rng.random(len(burst)) < np.where(place == 0, 0.3, 0.9)
    return card, rng.integers(0, _SHOPS, len(burst)), paid_at, amount, fraud.astype(np.int64)


def _requests(rng: np.random.Generator, midnight: int, means: Real) -> pa.Table:
    """Return requests whose amounts are higher than those of the training data."""
    card = rng.integers(0, _CARDS, _REQUESTS)
    return pa.table(
        {
            "card_id": card + FIRST_CARD,
            "shop_id": names("shop-{:02d}", rng.integers(0, _SHOPS, _REQUESTS)),
            "amount": np.round(_DRIFT * means[card] * rng.gamma(2, 0.5, _REQUESTS), 2),
            "paid_at": times(midnight - rng.integers(0, DAY, _REQUESTS)),
        }
    )


def delay_tables(midnight: int) -> dict[str, pa.Table]:
    """Return 40 days of trains at stations, by file name, which end some hours before a midnight, microseconds."""
    rng = np.random.default_rng(23)
    start = midnight - _DELAY_DAYS * DAY
    slowness = rng.gamma(4, 0.3, _LINES)
    arrivals, trips = _arrivals(rng, start, slowness)
    return {"stations.parquet": _stations(rng, start), "arrivals.parquet": arrivals, "trips.parquet": trips}


def _stations(rng: np.random.Generator, start: int) -> pa.Table:
    station, day = grid(_STATIONS, _DELAY_DAYS)
    return pa.table(
        {
            "station": names("station-{:02d}", station),
            "event_time": times(start + day * DAY),
            "platforms": 1 + station % 6,
            "works": rng.random(len(station)) < _WORKS_SHARE,
        }
    )


def _arrivals(rng: np.random.Generator, start: int, slowness: Real) -> tuple[pa.Table, pa.Table]:
    """Return arrivals as events, and as labels of the trips that they end; delays of a line come in jams of hours."""
    due = np.sort(rng.integers(start + 2 * DAY, start + _DELAY_DAYS * DAY - _ARRIVALS_END - HOUR, _ARRIVALS))
    line, station = rng.integers(0, _LINES, _ARRIVALS), rng.integers(0, _STATIONS, _ARRIVALS)
    jams = rng.random((_LINES, _DELAY_DAYS * DAY // _JAM)) < _JAM_SHARE
    jammed = jams[line, (due - start) // _JAM]
    delay = np.round(rng.gamma(4, slowness[line]) * np.where(jammed, 5.0, 1.0), 1)
    arrived_at = due + (delay * MINUTE).astype(np.int64)
    kept = arrived_at < start + _DELAY_DAYS * DAY - _ARRIVALS_END
    shared = {"line": names("line-{:02d}", line), "station": names("station-{:02d}", station)}
    events = pa.table(
        {
            **shared,
            "trip_id": names("t-{:05d}", np.arange(_ARRIVALS)),
            "delay": delay,
            "arrived_at": times(arrived_at),
            "received_at": times(arrived_at + lateness(rng, _ARRIVALS, 0.02, 3 * HOUR)),
        }
    )
    trips = pa.table({**shared, "due": times(due), "delay": delay, "known_at": times(next_midnight(arrived_at, 0))})
    return events.filter(pa.array(kept)).sort_by("arrived_at"), trips.filter(pa.array(kept))


def churn_tables(midnight: int) -> dict[str, pa.Table]:
    """Return 120 days of customers of a subscription, by file name, which end before a midnight, microseconds."""
    rng = np.random.default_rng(11)
    start = midnight - _CHURN_DAYS * DAY
    loyalty = rng.normal(0, 1, _CUSTOMERS)
    return {
        "contracts.parquet": _contracts(rng, start),
        "usage.parquet": _usage(rng, start, loyalty),
        "churned.parquet": _churned(rng, start, loyalty),
    }


def _contracts(rng: np.random.Generator, start: int) -> pa.Table:
    customer = np.arange(_CUSTOMERS)
    return pa.table(
        {
            "customer_id": names("c-{:04d}", customer),
            "event_time": times(start - rng.integers(0, 1_000, _CUSTOMERS) * DAY),
            "plan": pa.array(_PLANS[rng.integers(0, len(_PLANS), _CUSTOMERS)], pa.string()),
            "monthly_fee": rng.choice([9.99, 14.99, 24.99], _CUSTOMERS),
        }
    )


def _usage(rng: np.random.Generator, start: int, loyalty: Real) -> pa.Table:
    customer, day = grid(_CUSTOMERS, _CHURN_DAYS)
    hours = rng.gamma(6, np.exp(0.7 * loyalty[customer]) / 2)
    return pa.table(
        {
            "customer_id": names("c-{:04d}", customer),
            "event_time": times(start + day * DAY),
            "hours_7d": np.round(hours, 2),
            "tickets_30d": rng.poisson(np.exp(-0.5 - 0.4 * loyalty[customer])),
        }
    )


def _churned(rng: np.random.Generator, start: int, loyalty: Real) -> pa.Table:
    """Return one row per customer and tenth day: whether the customer left within the next 30 days."""
    customer, decade = grid(_CUSTOMERS, _CHURN_DAYS // 10)
    asked_at = start + decade * 10 * DAY + 9 * HOUR
    left = rng.random(len(customer)) < chance_of(-1.5 - 1.8 * loyalty[customer])
    return pa.table(
        {
            "customer_id": names("c-{:04d}", customer),
            "asked_at": times(asked_at),
            "churned": left.astype(np.int64),
            "known_at": times(start + (decade * 10 + _LABEL_DAYS) * DAY),
        }
    )


def times(values: npt.NDArray[Any]) -> pa.Array:
    """Return microseconds since 1970 as times with the zone UTC."""
    return pa.array(values.astype(np.int64), pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def names(pattern: str, numbers: npt.NDArray[Any]) -> pa.Array:
    """Return numbers in a pattern such as ``shop-{:02d}``."""
    return pa.array([pattern.format(number) for number in numbers.tolist()], pa.string())


def next_midnight(values: Integers, days: int) -> Integers:
    """Return the midnight that ends a time's day, some days later."""
    return (values // DAY + 1 + days) * DAY


def grid(rows: int, columns: int) -> tuple[Integers, Integers]:
    """Return every pair of a row and a column, each of shape ``(rows * columns,)``."""
    pairs = np.indices((rows, columns)).reshape(2, -1)
    return pairs[0], pairs[1]


def chance_of(odds: Real) -> Real:
    """Return probabilities of log odds."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def lateness(rng: np.random.Generator, n: int, share: float, longest: int) -> Integers:
    """Return how long events take to arrive: a second, and for a share of them minutes to hours."""
    late = np.exp(rng.uniform(np.log(5 * MINUTE), np.log(longest), n))
    return np.where(rng.random(n) < share, late, SECOND).astype(np.int64)


_TABLES: Mapping[str, Callable[[int], dict[str, pa.Table]]] = {
    "fraud": fraud_tables,
    "delay": delay_tables,
    "churn": churn_tables,
}


def write_sample(template: str, folder: Path, now_us: int) -> dict[str, int]:
    """Write the tables of a template, which end before the last midnight; return rows by file."""
    tables = _TABLES[template](now_us // DAY * DAY) if template in _TABLES else {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / name)
    return {name: table.num_rows for name, table in tables.items()}
