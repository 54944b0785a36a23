"""The models of `skewless demo --drift`: one with triggers and a rollout, and one that is never retrained."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from skewless import Gate, Guardrails, LabelSource, ModelSpec, Rollout, Split, Triggers, Watch

_CONTROL = ModelSpec(
    name="delay-alone",
    service="flight_delay",
    labels=LabelSource(
        path="data/flights/*.parquet",
        event_time="sched_dep",
        known_time="known_at",
        label="late",
        tolerance=timedelta(hours=1),  # the story requests predictions once per hour
    ),
    algorithm="lightgbm",
    horizon=timedelta(hours=1),
    split=Split(test=timedelta(days=14), embargo=timedelta(days=1)),
    params={
        "learning_rate": 0.1,
        "num_leaves": 31,
        "min_data_in_leaf": 200,
        "feature_fraction": 0.6,
        "lambda_l2": 1.0,
    },
    rounds=60,
    gate=Gate(metric="log_loss", tolerance=0.01, confidence=0.95, slice_tolerance=0.05),
    slices=("carrier", "origin"),
    watch=Watch(window=timedelta(days=7), share=0.15),
)

MODELS = [
    replace(
        _CONTROL,
        name="delay",
        rollout=Rollout(
            shadow=timedelta(hours=12),
            steps=(0.1, 0.5),
            step=timedelta(hours=12),
            # Each flight alone: arms of few planes or routes would differ by their delays, not by the versions.
            sticky=("tailnum", "sched_dep"),
            # After a change of season, the scores of a good challenger differ from the champion's.
            guardrails=Guardrails(score_shift=3.0, latency=5.0, least_requests=100),
        ),
        triggers=Triggers(drift=True, quality=0.05, cooldown=timedelta(days=14)),
    ),
    # The first version for the complete time, as the baseline: it is never retrained.
    _CONTROL,
]
