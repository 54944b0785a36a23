"""Replay finds whatever was changed in the prediction log by one who changes its catalog too (SEMANTICS 7.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.infra.records.predictions.checksum import seal_rows
from skewless.infra.records.predictions.segments import CONTENT, SCHEMA, compact_predictions, prediction_spool
from skewless.validation.replay_report import Cause, ReplayReport
from tests.worlds.planted import rewrite
from tests.worlds.trained import Sandbox, ask

ROWS = 12


def counts(report: ReplayReport) -> tuple[int, int, int]:
    """Return the missing rows, the missing files and the duplicates rows of a report that found something."""
    assert not report.ok
    body = report.as_dict()
    return body["missing"], len(body["missing_files"]), body["duplicates"]


def other(value: Any) -> Any:  # noqa: ANN401 - of any column
    """Return another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list():
            return [*map(other, value[:1]), *value[1:]] if value else None
        case dict():
            return {**value, "status": other(value["status"])}
        case _:
            raise AssertionError(value)


ADDED: dict[str, Any] = {
    "scores": [0.5],
    "policy": 1,
    "trace_id": "x",
    "action": "refuse",
    "propensity": 0.5,
    "reasons": ["x"],
    "lists": "{}",
    "event": {"stream": "s", "partition": "p", "seq": 1},
}


@pytest.mark.parametrize("name", SCHEMA.names)
def test_another_value_of_a_column(place: Sandbox, name: str) -> None:
    place.predict(ask(ROWS))
    (path,) = place.log_files()
    rows = pq.read_table(path)
    values = rows[name].to_pylist()
    values[3] = other(values[3]) if values[3] is not None else ADDED[name]
    field = SCHEMA.field(name)
    rewrite(path, rows.set_column(SCHEMA.get_field_index(name), field, pa.array(values, field.type)))
    report = place.project.replay()
    changed = values[3] if name == "id" else rows["id"][3].as_py()
    assert (report.compared, report.findings.by_cause) == (ROWS, {Cause.LOGGED_VALUE: 1})
    assert report.findings.predictions == {changed}


@pytest.mark.parametrize("seed", range(6))
def test_rows_that_are_missing_or_doubled(place: Sandbox, seed: int) -> None:
    chance = np.random.default_rng(seed)
    for first in (0, 40):
        place.predict(ask(ROWS, first))
    if seed % 2:
        place.wait(2 * 86_400)
        compact_predictions(place.project.state, place.now_us())
    path = place.log_files()[-1]
    rows = pq.read_table(path)
    lost, twice = chance.choice(len(rows), 4, replace=False).reshape(2, 2)
    kept = np.setdiff1d(np.arange(len(rows)), lost)
    rewrite(path, rows.take(np.sort(np.concatenate([kept, twice]))))
    report = place.project.replay()
    assert (report.different, counts(report)) == (0, (2, 0, 2))
    text = "\n".join(report.lines())
    assert "2 predictions are missing" in text
    assert "2 predictions are in the log more than once" in text
    assert counts(place.project.replay(new=True)) == (2, 0, 2)


def test_a_segment_that_is_missing(place: Sandbox) -> None:
    for first in (0, 40, 80):
        place.predict(ask(ROWS, first))
    tables = [pq.read_table(path).select(CONTENT.names) for path in place.log_files()]
    # As one server would have written them.
    state, spool = place.project.state, prediction_spool(place.project.state)
    state.database.execute("DELETE FROM segments WHERE partition = 'predictions'")
    for rows in tables:
        spool.store(rows["t"][0].as_py(), seal_rows(rows, spool.next_name))
        spool.ship()
    whole = place.project.replay()
    assert (whole.ok, whole.compared) == (True, 3 * ROWS)
    files = [pq.read_table(path)["file"][0].as_py() for path in place.log_files()]
    remove = "DELETE FROM segments WHERE partition = 'predictions' AND first_seq = ?"
    state.database.execute(remove, 4 * ROWS)
    report = place.project.replay()
    assert counts(report) == (0, 1, 0)
    assert files[1] in "\n".join(report.lines())
    # The first ones may be past their retention.
    state.database.execute(remove, 3 * ROWS)
    assert place.project.replay().ok


def test_a_model_that_does_not_exist(place: Sandbox) -> None:
    place.predict(ask(ROWS))
    (path,) = place.log_files()
    rows = pq.read_table(path)
    names = pa.array([name if i else "other" for i, name in enumerate(rows["model"].to_pylist())])
    rewrite(path, rows.set_column(SCHEMA.get_field_index("model"), "model", names))
    report = place.project.replay()
    assert (report.compared, report.different) == (ROWS, 1)
    assert report.findings.by_cause == {Cause.LOGGED_VALUE: 1}
