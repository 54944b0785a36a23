"""The models: arrival more than 15 minutes late, predicted an hour before the flight, and decided when it departs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import policies

from skewless import DecisionStream, Gate, LabelSource, ModelSpec, Outcomes, Policy, RedisStreamSink, Split

_BATCH = ModelSpec(
    name="delay-batch",
    service="flight_delay",
    labels=LabelSource(path="data/flights/*.parquet", event_time="sched_dep", known_time="known_at", label="late"),
    algorithm="lightgbm",
    horizon=timedelta(hours=1),
    split=Split(test=timedelta(days=14), embargo=timedelta(days=1)),
    params={
        "learning_rate": 0.08,
        "num_leaves": 63,
        "min_data_in_leaf": 200,
        "feature_fraction": 0.6,
        "lambda_l2": 1.0,
    },
    rounds=100,
    gate=Gate(metric="auc", floor=0.62, tolerance=0.005),
)
MODELS = [
    replace(_BATCH, name="delay-lgbm", service="flight_delay_live"),
    # The same model without windows over the streams; the difference is the gain of the windows.
    _BATCH,
    # It decides on departures. Its first version learns from the table of earlier flights, each later one also from the
    # outcomes of its decisions.
    ModelSpec(
        name="arrival-xgb",
        service="arrival_delay",
        labels=Outcomes(
            table=LabelSource(
                path="data/departed/history", event_time="departed_at", known_time="known_at", label="late"
            ),
            # Feedback is sent once an hour; the flight has landed before.
            known="declared",
        ),
        algorithm="xgboost",
        split=Split(test=timedelta(days=7), embargo=timedelta(days=1)),
        params={
            "learning_rate": 0.08,
            "max_depth": 7,
            "min_child_weight": 20.0,
            "colsample_bytree": 0.6,
            "reg_lambda": 1.0,
            "tree_method": "hist",
        },
        rounds=80,
        gate=Gate(metric="auc", floor=0.62, tolerance=0.005),
        policy=Policy(function=policies.act, actions=("none", "warn", "hold"), reads=("departure__local_hour",)),
        retrain="0 4 * * 1",
    ),
]
DECISIONS = [
    DecisionStream(
        name="departures",
        source="departures",
        model="arrival-xgb",
        sinks=(RedisStreamSink(name="departure-decisions", stream="departure-decisions"),),
    ),
]
