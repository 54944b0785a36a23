"""Fraud whose declined payments have no outcome: what retraining from outcomes gives, with and without exploration.

Four models decide the same payments of a project, each by its own score. What a model declines has no outcome; it is
retrained after each round from the outcomes that it has let happen. After the history that all begin with, the world
changes: payments at night, which were fraud, are safe now, and those at noon become fraud. ::

    python -m benchmarks.learning [SEEDS] [ROUNDS] [PAYMENTS] [FOLDER]

writes ``docs/learning.svg`` and prints the table of ``docs/learn-from-outcomes.md``. The folder keeps the results of
each seed, so that an interrupted simulation continues.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.plot import Panel, draw
from benchmarks.server import own_server
from skewless.contract.clock import OffsetClock
from skewless.contract.feedback import Outcome
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.infra.records.predictions.segments import prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.project import Project
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.validation.evaluation.evaluation import evaluate

ROOT = Path(__file__).parents[1]
ARMS = {
    "all": "all outcomes known",
    "blind": "no exploration",
    "plain": "5 % exploration, no weights",
    "weighted": "5 % exploration, weights",
}
SHARE, LOSS = 0.05, 4.0  # of exploration; of an approved fraud, in units of the gain from an approved good payment
_START = 1_767_225_600_000_000  # 2026-01-01 00:00 UTC
_SECOND, _DAY = 1_000_000, 86_400_000_000
_SHOPS, _HISTORY_DAYS, _CALLS = 100, 14, 7
_DEFAULTS = ("6", "10", "2100")
Real = npt.NDArray[np.float64]

_DEFINITIONS = """from feast import Entity, FeatureService, Field, FileSource
from feast.types import Float64, String
from feast.value_type import ValueType
import transforms
from skewless.definitions import feature_view, on_demand_view, request_source

shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
shop_risk = feature_view(
    "shop_risk",
    entities=[shop],
    schema=[Field(name="shop_id", dtype=String), Field(name="refund_share", dtype=Float64)],
    source=FileSource(path="data/shop_risk.parquet", timestamp_field="event_time"),
)
request = request_source(
    "request", schema=[Field(name="amount", dtype=Float64), Field(name="hour", dtype=Float64)]
)
payment = on_demand_view(
    "payment",
    sources=[request],
    schema=[Field(name="size", dtype=Float64), Field(name="at_hour", dtype=Float64)],
    transform=transforms.payment,
)
features = FeatureService(name="features", features=[shop_risk, payment])
"""
_TRANSFORMS = '''import numpy as np


def payment(inputs):
    """Return the logarithm of the amount, and the hour."""
    with np.errstate(all="ignore"):
        size = np.log(np.asarray(inputs["amount"], dtype=np.float64))
    outputs = {
        "size": size,
        "at_hour": np.asarray(inputs["hour"], dtype=np.float64),
    }
    if isinstance(inputs["amount"], list):
        return {name: column.tolist() for name, column in outputs.items()}
    return outputs
'''
_MODELS = """from datetime import timedelta

from skewless import Explore, Gate, LabelSource, ModelSpec, Outcomes, Split

HISTORY = LabelSource(path="data/history.parquet", event_time="at", known_time="known_at", label="fraud")
EXPLORE = Explore(share={share}, action="approve")
MODELS = [
    ModelSpec(
        name=name,
        service="features",
        labels=Outcomes(table=HISTORY, observed=observed, weighted=weighted),
        algorithm="lightgbm",
        split=Split(test=timedelta(days=7)),
        params=dict(num_leaves=8, learning_rate=0.1, min_data_in_leaf=20, lambda_l2=1.0),
        rounds=60,
        decisions={{"approve": 0.0, "decline": {threshold}}},
        explore=explore,
        gate=Gate(metric="log_loss", tolerance=100.0, beat_baseline=False),
    )
    for name, observed, weighted, explore in (
        ("all", (), False, None),
        ("blind", ("approve",), False, None),
        ("plain", ("approve",), False, EXPLORE),
        ("weighted", ("approve",), True, EXPLORE),
    )
]
"""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one model was worth in one round, before it was retrained.

    Args:
        auc, log_loss: on all payments of the round, also those that it declined.
        value: mean gain of a payment, in units of the gain from an approved good one.
        approved: share of the payments.
        estimate: the log loss that its outcomes alone show, with its weights.
        effective: effective number of its outcomes.
    """

    auc: float
    log_loss: float
    value: float
    approved: float
    estimate: float
    effective: float


@dataclass(frozen=True, kw_only=True)
class Payments:
    """Payments with what becomes of each if it is approved.

    Args:
        rows: requests.
        chance: of fraud.
        fraud: what would happen.
    """

    rows: list[dict[str, Any]]
    chance: Real
    fraud: Real


def make_payments(rng: np.random.Generator, risk: Real, n: int, *, changed: bool) -> Payments:
    """Return n payments of the world before or after the change."""
    shop, hour, size = rng.integers(0, risk.size, n), rng.integers(0, 24, n), rng.normal(3.5, 0.8, n)
    night, noon = hour < 6, (hour >= 11) & (hour < 14)
    bad = noon if changed else night
    odds = -3.6 + 3.0 * bad + 0.6 * (size - 3.5) + 4.0 * (risk[shop] - 0.2)
    chance = 1.0 / (1.0 + np.exp(-odds))
    rows = [
        {"shop_id": f"shop-{s:03d}", "amount": float(np.exp(a)), "hour": float(h)}
        for s, a, h in zip(shop.tolist(), size.tolist(), hour.tolist(), strict=True)
    ]
    return Payments(rows=rows, chance=chance, fraud=(rng.random(n) < chance).astype(np.float64))


def simulate(
    folder: Path, url: str, *, seed: int, rounds: int, payments: int, arms: Sequence[str] = tuple(ARMS)
) -> dict[str, list[Round]]:
    """Return the rounds of some models of a project that is written to a folder."""
    rng = np.random.default_rng(seed)
    risk = rng.beta(2, 8, _SHOPS)
    _write_project(folder, make_payments(rng, risk, 2 * payments, changed=False), risk, seed)
    found: dict[str, list[Round]] = {name: [] for name in arms}
    with Project(folder, clock=f"file:{folder}/.skewless/clock", redis_url=url, threads=1) as project:
        project.apply()
        project.materialize(check=False)
        for _ in range(rounds):
            for name in arms:
                project.train(name)
            parts = [make_payments(rng, risk, payments // _CALLS, changed=True) for _ in range(_CALLS)]
            answers = {name: list[ScoredSlice]() for name in arms}
            for part in parts:
                for name in arms:
                    answers[name].append(asyncio.run(_predict(project, url, name, part.rows)))
                _move(project, _DAY)
            for name in arms:
                found[name].append(_learn(project, name, parts, answers[name]))
            _move(project, _DAY)
    return found


def _learn(project: Project, name: str, parts: Sequence[Payments], answers: Sequence[ScoredSlice]) -> Round:
    """Send the outcomes that the model's decisions have let happen, and measure it on all payments."""
    scores = np.concatenate([answer.scores for answer in answers])
    fraud = np.concatenate([part.fraud for part in parts])
    actions = [action for answer in answers for action in answer.decisions or ()]
    approved = np.array([action == "approve" for action in actions])
    seen = approved | (name == "all")
    ids = [id_ for answer in answers for id_ in answer.ids]
    now = project.clock.now_us()
    outcomes = [
        Outcome(prediction_id=ids[i], label=float(fraud[i]), known_at=now) for i in np.flatnonzero(seen).tolist()
    ]
    OutcomeWriter(outcome_spool(project.state)).append(outcomes, received_at=now, source="simulation")
    # The declined payments that were approved nevertheless stand for all that were declined.
    declined = scores >= 1 / (1 + LOSS)
    weights = np.where(declined & (name == "weighted"), 1 / SHARE, 1.0)[seen]
    metrics, shown = evaluate(fraud, scores), evaluate(fraud[seen], scores[seen], weights)
    return Round(
        auc=float(metrics["auc"] or 0.0),
        log_loss=float(metrics["log_loss"] or 0.0),
        value=float((approved * (1.0 - fraud * (1.0 + LOSS))).mean()),
        approved=float(approved.mean()),
        estimate=float(shown["log_loss"] or 0.0),
        effective=float(weights.sum() ** 2 / (weights**2).sum()),
    )


async def _predict(project: Project, url: str, name: str, rows: Sequence[dict[str, Any]]) -> ScoredSlice:
    version = project.store.aliases.get(name, "champion")
    assert version is not None
    model, reader, spool = load_model(project.store, name, version), RedisReader(url), prediction_spool(project.state)

    def refuse(n: int, why: str) -> None:
        raise AssertionError((n, why))

    log = PredictionWriter(spool, capacity=1_000_000, flush_seconds=60.0, on_drop=refuse, on_stored=spool.ship)
    try:
        return await Predictor(online=reader, clock=project.clock, log=log).predict(model, rows)
    finally:
        log.close()
        await reader.close()
        model.runtime.close()


def _move(project: Project, us: int) -> None:
    clock = project.clock
    assert isinstance(clock, OffsetClock)
    clock.set(clock.now_us() + us)


def _write_project(folder: Path, history: Payments, risk: Real, seed: int) -> None:
    (folder / "data").mkdir(parents=True)
    texts = {
        "definitions.py": _DEFINITIONS,
        "transforms.py": _TRANSFORMS,
        "models.py": _MODELS.format(share=SHARE, threshold=1 / (1 + LOSS)),
        "feature_store.yaml": f"project: learning{seed}\nprovider: local\nregistry: .skewless/registry.db\n"
        "offline_store:\n  type: file\nonline_store: null\nentity_key_serialization_version: 3\n",
        ".feastignore": "transforms.py\nmodels.py\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    shops = pa.table({
        "shop_id": [f"shop-{i:03d}" for i in range(risk.size)],
        "event_time": _times(np.full(risk.size, _START - 30 * _DAY)),
        "refund_share": risk,
    })  # fmt: skip
    pq.write_table(shops, folder / "data/shop_risk.parquet")
    n = len(history.rows)
    at = _START - np.sort(np.random.default_rng(seed).integers(_DAY, _HISTORY_DAYS * _DAY, n))[::-1]
    columns = {key: [row[key] for row in history.rows] for key in history.rows[0]}
    labels = pa.table({**columns, "at": _times(at), "known_at": _times(at + _DAY), "fraud": history.fraud})
    pq.write_table(labels, folder / "data/history.parquet")
    OffsetClock.create(folder / ".skewless/clock").set(_START)


def _times(values: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def plot(found: Mapping[str, npt.NDArray[np.float64]]) -> str:
    """Return an SVG: means over the seeds, with a band of one standard deviation.

    Args:
        found: per arm, shape ``(seeds, rounds, fields of Round)``.
    """
    panels = []
    for name, unit in (
        ("value", "value of a payment"),
        ("log_loss", "log loss, all payments"),
        ("approved", "share approved"),
    ):
        moments = {ARMS[arm]: _moments(values, name) for arm, values in found.items()}
        n = next(iter(moments.values()))[0].size
        panels.append(
            Panel(
                title=unit,
                x=range(n),
                x_title="round",
                lines={arm: mean.tolist() for arm, (mean, _) in moments.items()},
                bands={arm: spread.tolist() for arm, (_, spread) in moments.items()},
            )
        )
    return draw(panels)


def table(found: Mapping[str, npt.NDArray[np.float64]]) -> Iterator[str]:
    """Yield the lines of the page's table: mean and standard deviation over the seeds, of the last round."""
    yield "| model | value of a payment | share approved | AUC | log loss | log loss shown by its outcomes |"
    yield "|---|---|---|---|---|---|"
    for arm, values in found.items():
        moments = [_moments(values, name) for name in ("value", "approved", "auc", "log_loss", "estimate")]
        yield f"| {ARMS[arm]} | {' | '.join(f'{mean[-1]:.3f} ± {spread[-1]:.3f}' for mean, spread in moments)} |"


def _moments(values: npt.NDArray[np.float64], name: str) -> tuple[Real, Real]:
    """Return mean and standard deviation over the seeds of a field, each of shape ``(rounds,)``."""
    each = values[:, :, [field.name for field in fields(Round)].index(name)]
    return each.mean(axis=0), each.std(axis=0, ddof=min(1, len(each) - 1))


def run(seeds: int, rounds: int, payments: int, kept: Path | None = None) -> dict[str, npt.NDArray[np.float64]]:
    """Return the rounds of all arms, shape ``(seeds, rounds, fields of Round)``.

    Args:
        kept: folder with the results of each seed; None: they are not kept.
    """
    found: dict[str, list[list[list[float]]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        file = None if kept is None else kept / f"{seed}-{rounds}-{payments}.json"
        if file is None or not file.exists():
            with tempfile.TemporaryDirectory() as folder, own_server() as url:
                each = simulate(Path(folder) / "p", url, seed=seed, rounds=rounds, payments=payments)
            body = {name: [list(astuple(item)) for item in lines] for name, lines in each.items()}
        else:
            body = json.loads(file.read_text())
        if file is not None:
            file.write_text(json.dumps(body))
        for name, lines in body.items():
            found[name].append(lines)
        print(f"seed {seed}: " + ", ".join(f"{name} {lines[-1][2]:.3f}" for name, lines in body.items()), flush=True)
    return {name: np.array(values) for name, values in found.items()}


def main(arguments: Sequence[str]) -> None:
    """Simulate, write the plot and print the table."""
    numbers, kept = list(arguments[:3]), Path(arguments[3]) if len(arguments) > len(_DEFAULTS) else None
    seeds, rounds, payments = (int(text) for text in (*numbers, *_DEFAULTS[len(numbers) :]))
    found = run(seeds, rounds, payments, kept)
    (ROOT / "docs" / "learning.svg").write_text(plot(found), encoding="utf-8")
    for line in table(found):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
