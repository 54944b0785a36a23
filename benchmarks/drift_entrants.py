"""Contestants of the drift comparison; each is given what its users have: ours a profile, Evidently the rows."""

# ruff: noqa: PLC0415 - each runs in its own environment

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from benchmarks.meter import Meter

_PSI = 0.2


def skewless(meter: Meter, *, trained: str, live: str, wanted: Sequence[str]) -> str:
    """Count the live vectors over the bins of the package's profile, and judge PSI, JS and KS."""
    import numpy as np
    import pyarrow.parquet as pq

    from skewless.contract.lifecycle import Watch
    from skewless.infra.records.predictions.live_predictions import LivePredictions
    from skewless.training.curves import profile_features
    from skewless.validation.drift.verdicts import compare_window, count_window

    before, now = pq.read_table(trained), pq.read_table(live)
    names = before.column_names
    made = profile_features(np.column_stack([before[name].to_numpy() for name in names]), names)
    vectors = np.column_stack([now[name].to_numpy() for name in names])
    with meter.lap():
        piece = LivePredictions(vectors=vectors, scores=np.zeros(len(vectors)))
        counts = count_window(made, names, [piece])
        found = compare_window(made, names, counts, np.empty(0), Watch(psi=_PSI), {})
    return _digest((name for name, column in found.items() if column.drifted), wanted)


def evidently(meter: Meter, *, trained: str, live: str, wanted: Sequence[str]) -> str:
    """Run Evidently's drift preset with PSI and the same limit."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]  # it has an environment of its own
    from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]  # as above

    frames = [pd.read_parquet(path) for path in (trained, live)]
    numbers = [name for name in map(str, frames[0]) if name.startswith("x")]
    codes = [name for name in map(str, frames[0]) if name.startswith("k")]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=codes)
    before, now = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    with meter.lap():
        preset = DataDriftPreset(method="psi", threshold=_PSI)
        found = Report([preset]).run(now, before).dict()
    drifted = [
        metric["config"]["column"]
        for metric in found["metrics"]
        if "column" in metric["config"] and metric["value"] >= _PSI
    ]
    return _digest(drifted, wanted)


def _digest(drifted: Iterable[str], wanted: Sequence[str]) -> str:
    names = sorted(drifted)
    assert names == list(wanted), (names, wanted)
    return json.dumps(names)
