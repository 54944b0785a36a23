"""The models of this project."""

from datetime import timedelta

from skewless import Gate, LabelSource, ModelSpec, Split

MODELS = [
    ModelSpec(
        name="fraud",
        service="fraud_features",
        labels=LabelSource(path="data/payments.parquet", event_time="paid_at", known_time="known_at", label="fraud"),
        algorithm="lightgbm",
        split=Split(test=timedelta(days=7), embargo=timedelta(days=1)),
        params={"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20},
        rounds=50,
        gate=Gate(metric="auc", floor=0.6, tolerance=0.01),
        retrain="0 4 * * *",
    ),
]
