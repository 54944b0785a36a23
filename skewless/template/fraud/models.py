"""The models of this project."""

from datetime import timedelta

from skewless import Gate, LabelSource, ModelSpec, Rollout, Split, Watch

LABELS = LabelSource(path="data/labels.parquet", event_time="paid_at", known_time="known_at", label="fraud")
SPLIT = Split(test=timedelta(days=7), embargo=timedelta(days=1))
PARAMS = {"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20}

MODELS = [
    ModelSpec(
        name="fraud",
        service="fraud_features",
        labels=LABELS,
        algorithm="lightgbm",
        split=SPLIT,
        params=PARAMS,
        rounds=60,
        decisions={"approve": 0.0, "review": 0.2, "decline": 0.7},
        gate=Gate(metric="auc", floor=0.8, tolerance=0.01),
        # A new version is first scored in shadow, then answers more and more of the traffic.
        rollout=Rollout(kind="canary", shadow=timedelta(hours=1), steps=(0.05, 0.25), sticky=("card_id",)),
        watch=Watch(share=0.05),  # drift of a single feature is drift of the model
        retrain="0 4 * * *",
    ),
    # The same without windows over the stream: the difference shows their worth.
    ModelSpec(
        name="fraud-batch",
        service="batch_features",
        labels=LABELS,
        algorithm="lightgbm",
        split=SPLIT,
        params=PARAMS,
        rounds=60,
        gate=Gate(metric="auc", floor=0.6, tolerance=0.01),
    ),
]
