"""The models of this project."""

from datetime import timedelta

from skewless import Gate, LabelSource, ModelSpec, Split

MODELS = [
    ModelSpec(
        name="churn",
        service="churn_features",
        labels=LabelSource(path="data/churned.parquet", event_time="asked_at", known_time="known_at", label="churned"),
        algorithm="lightgbm",
        split=Split(test=timedelta(days=20), embargo=timedelta(days=5)),
        params={"num_leaves": 7, "learning_rate": 0.1, "min_data_in_leaf": 20},
        rounds=40,
        gate=Gate(metric="auc", floor=0.6, tolerance=0.01),
        retrain="0 4 * * 1",
    ),
]
