"""Customers of a subscription: the tables of the template ``churn``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from skewless.operations.sample.columns import DAY, HOUR, Real, chance_of, grid, names, times

_CUSTOMERS, _DAYS, _LABEL_DAYS = 300, 120, 30
_PLANS = np.array(["basic", "family", "premium"], dtype=object)


def churn_tables(midnight: int) -> dict[str, pa.Table]:
    """Return 120 days of tables by file name, which end before a midnight, microseconds."""
    rng = np.random.default_rng(11)
    start = midnight - _DAYS * DAY
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
    customer, day = grid(_CUSTOMERS, _DAYS)
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
    customer, decade = grid(_CUSTOMERS, _DAYS // 10)
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
