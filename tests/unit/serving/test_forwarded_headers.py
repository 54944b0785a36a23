"""The server takes no client's word for its address, whatever the environment says about gateways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from skewless.serving import process
from skewless.serving.app import ServingContext
from skewless.serving.events import EventForwarder
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.wire_limits import BodyBudget, WireLimits
from skewless.serving.metrics.metrics import Metrics

if TYPE_CHECKING:
    from skewless.serving.models.table import ModelTable
    from skewless.serving.prediction.predictor import Predictor


def test_forwarded_headers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    serving = ServingContext(
        models=cast("ModelTable", SimpleNamespace(all=list)),
        predictor=cast("Predictor", None),
        metrics=Metrics(),
        events=cast("EventForwarder", None),
        feedback=cast("Feedback", None),
        reload_seconds=1.0,
    )
    queue = cast("FairQueue", SimpleNamespace(bodies=BodyBudget(1)))
    options = process._options(serving, WireLimits(body_bytes=1), queue)
    options.load()
    assert "ProxyHeaders" not in type(options.loaded_app).__name__
