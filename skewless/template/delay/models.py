"""The models of this project."""

from datetime import timedelta

from skewless import Gate, LabelSource, ModelSpec, Split

MODELS = [
    ModelSpec(
        name="delay",
        service="delay_features",
        labels=LabelSource(path="data/trips.parquet", event_time="due", known_time="known_at", label="delay"),
        algorithm="lightgbm",
        task="regression",
        horizon=timedelta(minutes=10),
        split=Split(test=timedelta(days=7), embargo=timedelta(days=1)),
        params={"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20},
        rounds=60,
        gate=Gate(metric="rmse", tolerance=0.1),
        retrain="0 4 * * *",
    ),
]
