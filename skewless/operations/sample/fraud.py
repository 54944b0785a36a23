"""Payments of cards at shops: the tables of the template ``fraud``.

Stolen cards pay several times within an hour, which only windows over the stream can show. Some events arrive hours
late. The requests of ``requests.parquet`` have other amounts than the training data: drift, planted to be found.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from skewless.operations.sample.columns import (
    DAY,
    HOUR,
    MINUTE,
    Integers,
    Real,
    chance_of,
    grid,
    lateness,
    names,
    next_midnight,
    times,
)

FIRST_CARD = 9_007_199_254_740_993  # above 2^53, where a float64 would lose digits
_CARDS, _SHOPS, _DAYS, _PAYMENTS, _BURSTS, _REQUESTS = 400, 200, 60, 14_000, 110, 500
_COUNTRIES = np.array(["DE", "FR", "PL", None], dtype=object)
_LATE_SHARE, _NULL_SHARE, _DRIFT = 0.03, 0.05, 2.5
# Before midnight: windows of an hour are empty all day long, at any hour.
_HISTORY_END, _STREAM_END = 26 * HOUR, 2 * HOUR
_REPEATED = 6


def fraud_tables(midnight: int) -> dict[str, pa.Table]:
    """Return 60 days of tables by file name, which end some hours before a midnight, microseconds."""
    rng = np.random.default_rng(7)
    start = midnight - _DAYS * DAY
    risk = rng.beta(2, 8, _SHOPS)
    means = rng.gamma(4, 10, _CARDS)
    card_days = _card_days(rng, start, means)
    shop_risk = _shop_risk(rng, start, risk)
    payments, labels = _payments(rng, start, means, risk)
    events = payments["paid_at"].cast(pa.int64()).to_numpy()
    history, stream = events < midnight - _HISTORY_END, events >= midnight - _HISTORY_END
    return {
        "card_days.parquet": card_days,
        "shop_risk.parquet": shop_risk,
        "payments.parquet": payments.filter(pa.array(history)),
        "stream.parquet": _stream(payments.filter(pa.array(stream))),
        "labels.parquet": labels,
        "requests.parquet": _requests(rng, midnight, means),
    }


def _card_days(rng: np.random.Generator, start: int, means: Real) -> pa.Table:
    card, day = grid(_CARDS, _DAYS)
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
    shop, day = grid(_SHOPS, _DAYS)
    share = np.clip(risk[shop] + rng.normal(0, 0.02, len(shop)), 0, 1)
    return pa.table(
        {"shop_id": names("shop-{:02d}", shop), "event_time": times(start + day * DAY), "refund_share": share}
    )


def _payments(rng: np.random.Generator, start: int, means: Real, risk: Real) -> tuple[pa.Table, pa.Table]:
    """Return events and labels of ordinary payments and of bursts of stolen cards, in the order of their times."""
    end = start + _DAYS * DAY - _STREAM_END
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
