"""The project of the tests, payments and statistics of cards and shops: its files, its tables, made up."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import open_clock
from skewless.contract.settings import load_settings
from skewless.operations.init import project_name

TEMPLATE = Path(__file__).with_name("payments")

_DAY = 86_400_000_000
_CARDS, _SHOPS, _DAYS, _PAYMENTS = 300, 40, 60, 6_000
_NULL_SHARE = 0.05
_TIME = pa.timestamp("us", tz="UTC")


def write_payments(repo: Path) -> None:
    """Write the project, named after its folder, with its tables as of the clock of its settings."""
    shutil.copytree(TEMPLATE, repo, ignore=shutil.ignore_patterns("__pycache__"))
    config = repo / "feature_store.yaml"
    config.write_text(re.sub(r"(?m)^project: .*$", f"project: {project_name(repo.name)}", config.read_text()))
    write_sample(repo / "data", open_clock(load_settings(repo).clock).now_us())


def write_sample(folder: Path, now_us: int) -> dict[str, int]:
    """Write 60 days of payments, card and shop statistics that end yesterday; return rows by file."""
    rng = np.random.default_rng(7)
    start = (now_us // _DAY - _DAYS) * _DAY
    risk = rng.beta(2, 8, _SHOPS)
    means = rng.gamma(4, 10, _CARDS)
    tables = {
        "card_days.parquet": _card_days(rng, start, means),
        "shop_risk.parquet": _shop_risk(rng, start, risk),
        "payments.parquet": _payments(rng, start, means, risk),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / name)
    return {name: table.num_rows for name, table in tables.items()}


def _card_days(rng: np.random.Generator, start: int, means: npt.NDArray[np.float64]) -> pa.Table:
    card, day = (part.ravel() for part in np.meshgrid(np.arange(_CARDS), np.arange(0, _DAYS, 3)))
    event = start + day * _DAY
    countries = np.array(["DE", "FR", "PL", None], dtype=object)
    return pa.table(
        {
            "card_id": card + 9_007_199_254_740_993,
            "event_time": _times(event),
            "created": _times(event + 3_600_000_000),
            "payments_7d": rng.poisson(5, len(card)),
            "mean_amount_7d": pa.array(
                means[card] * rng.uniform(0.8, 1.2, len(card)), mask=rng.random(len(card)) < _NULL_SHARE
            ),
            "country": pa.array(countries[card % 4], pa.string()),
        }
    )


def _shop_risk(rng: np.random.Generator, start: int, risk: npt.NDArray[np.float64]) -> pa.Table:
    shop, day = (part.ravel() for part in np.meshgrid(np.arange(_SHOPS), np.arange(_DAYS)))
    share = np.clip(risk[shop] + rng.normal(0, 0.02, len(shop)), 0, 1)
    return pa.table({"shop_id": _shops(shop), "event_time": _times(start + day * _DAY), "refund_share": share})


def _payments(
    rng: np.random.Generator, start: int, means: npt.NDArray[np.float64], risk: npt.NDArray[np.float64]
) -> pa.Table:
    card, shop = rng.integers(0, _CARDS, _PAYMENTS), rng.integers(0, _SHOPS, _PAYMENTS)
    paid_at = np.sort(start + 2 * _DAY + rng.integers(0, (_DAYS - 2) * _DAY, _PAYMENTS))
    amount = means[card] * rng.gamma(2, 0.5, _PAYMENTS)
    odds = -3.5 + 6 * risk[shop] + 1.2 * (amount > 2 * means[card])
    fraud = rng.random(_PAYMENTS) < 1 / (1 + np.exp(-odds))
    return pa.table(
        {
            "card_id": card + 9_007_199_254_740_993,
            "shop_id": _shops(shop),
            "paid_at": _times(paid_at),
            "amount": amount,
            "fraud": fraud.astype(np.int64),
            "known_at": _times(paid_at + 6 * 3_600_000_000),
        }
    )


def _times(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values.astype(np.int64), pa.int64()).cast(_TIME)


def _shops(shop: npt.NDArray[Any]) -> pa.Array:
    return pa.array([f"shop-{i:02d}" for i in shop], pa.string())
