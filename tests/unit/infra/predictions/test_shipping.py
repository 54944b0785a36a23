"""The thread that ships files of the spool: at once, again after a failure, and what it says meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.log.spool import Shipper
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS, prediction_spool
from tests.unit.infra.predictions.merges import segments, spool_record
from tests.unit.infra.predictions.records import origin, record
from tests.worlds.waiting import eventually


@contextmanager
def refusing_storage(state: ProjectState) -> Iterator[None]:
    """A file has the name of the segments' folder."""
    path = state / PREDICTIONS
    path.write_bytes(b"")
    yield
    path.unlink()


def test_files_of_earlier_processes_are_shipped_at_once(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    for seed in range(3):
        spool_record(state, record(origin(), 2, seed))
    shipper = Shipper([prediction_spool(state)])
    eventually(lambda: [segment.rows for segment in segments(state)] == [2, 2, 2])
    spool_record(state, record(origin(), 4, 3))
    shipper.wake()
    eventually(lambda: len(segments(state)) == 4)
    shipper.close()
    assert (shipper.problem, shipper.files_waiting) == (None, 0)


def test_a_failure_is_logged_once_and_shown_until_it_ends(tmp_path: Path) -> None:
    state, spool = ProjectState(tmp_path), prediction_spool(ProjectState(tmp_path))
    with capture_logs() as logs:
        with refusing_storage(state):
            spool_record(state, record(origin(), 2, 0))
            shipper = Shipper([spool])
            eventually(lambda: shipper.files_waiting == 1)
            spool_record(state, record(origin(), 2, 1))
            with pytest.raises(StoreError):
                shipper.ship(spool)
            eventually(lambda: shipper.files_waiting == 2)
            assert shipper.problem is not None
            assert str(tmp_path) not in shipper.problem
        eventually(lambda: shipper.problem is None)
        shipper.close()
    assert [line["event"] for line in logs] == ["log_not_shipped", "log_shipped"]
    assert (shipper.files_waiting, [segment.rows for segment in segments(state)]) == (0, [2, 2])


def test_files_that_cannot_be_shipped_stay_when_the_server_stops(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    with refusing_storage(state):
        path = spool_record(state, record(origin(), 2, 0))
        shipper = Shipper([prediction_spool(state)])
        shipper.close()
    assert prediction_spool(state).waiting() == [path]
    prediction_spool(state).ship()
    assert [segment.rows for segment in segments(state)] == [2]
