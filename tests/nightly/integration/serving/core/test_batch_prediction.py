"""Batch prediction closes its predictor, also after an error, and drops no prediction, however slow the log is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import RequestError
from skewless.infra.log.spool import Spool
from skewless.infra.records.predictions.segments import prediction_files
from skewless.serving.prediction.predictor import Predictor
from tests.nightly.integration.serving.core.test_batch_tasks import CHUNK, ROWS, on_engine, rows_of
from tests.worlds.trained import MODEL, Sandbox, ask


def scoring_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("scoring")}


def test_an_invalid_row_leaves_no_scoring_thread(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scoring_threads()
    assert len(place.project.predict(MODEL, ask(2))) == 2
    assert scoring_threads() == before
    closed: list[Predictor] = []
    real = Predictor.close

    async def close(predictor: Predictor) -> None:
        closed.append(predictor)
        await real(predictor)

    monkeypatch.setattr(Predictor, "close", close)
    with pytest.raises(RequestError):
        place.project.predict(MODEL, [{"card_id": "x"}])
    assert len(closed) == 1
    assert scoring_threads() == before


def test_a_slow_log_slows_the_predictions_down_and_loses_none(
    place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Spool.store

    def store_slowly(spool: Spool, *args: Any) -> None:  # noqa: ANN401 - those of a method
        time.sleep(0.02)
        store(spool, *args)

    monkeypatch.setattr(Spool, "store", store_slowly)
    pq.write_table(rows_of(ROWS), tmp_path / "rows.parquet")
    settings = {"engine_rows": 10_000_000, "log_capacity": 4 * CHUNK, "log_flush_seconds": 0.001}
    with on_engine(place, **settings) as project:  # type: ignore[arg-type]  # settings by name
        assert project.predict_file(MODEL, tmp_path / "rows.parquet", tmp_path / "out.parquet") == ROWS
        logged = pa.concat_tables([pq.read_table(path, columns=["id"]) for path in prediction_files(project.state)])
    assert set(pq.read_table(tmp_path / "out.parquet")["id"].to_pylist()) <= set(logged["id"].to_pylist())
