"""The baseline learns: its quality is what the models are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from .baseline import auc, baseline_auc
from .conftest import Flights


def test_auc_counts_ordered_pairs() -> None:
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.9])
    assert auc(labels, scores) == (1 + 0.5 + 1 + 1) / 4


@pytest.mark.soak  # as what it is compared with
def test_weather_helps(flights: Flights) -> None:
    static = baseline_auc(flights.data, tables=("planes",), rounds=30)
    weather = baseline_auc(flights.data, tables=("planes", "weather"), rounds=30)
    assert 0.58 < static < weather < 0.80
