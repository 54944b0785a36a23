"""SEMANTICS 7.3: only a difference that an erased row can explain counts as erased."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless import ManualClock, workspace
from skewless.infra.log.compaction import rewrite_segments
from skewless.infra.records.predictions.segments import open_prediction_log
from skewless.project import Project
from tests.worlds.erasures import DAY, ERASED, NOW, SHOPS, delete_in_sources, fill, write_repo


@pytest.mark.parametrize("days", [0, 3])
def test_a_difference_beyond_the_reach_of_erased_events_is_one(
    tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    clock = ManualClock(NOW)
    monkeypatch.setattr(workspace, "open_clock", lambda _setting: clock)
    repo = write_repo(tmp_path / "p", f"reads_{days}_{tmp_path.parent.name}".replace("-", "_"))
    with Project(repo, redis_url=server_url) as project:
        fill(project)
        project.train("shops")
        # Windows of a day; the last event happened before NOW.
        clock.set(NOW + days * DAY)
        project.backfill()
        project.predict("shops", [{"shop": shop} for shop in SHOPS])
        assert (report := project.replay()).ok, report.lines()
        assert report.compared == len(SHOPS)
        _alter(project)
        altered = project.replay()
        assert (altered.different, altered.erased) == (1, 0)
        delete_in_sources(repo)
        project.erase({"user": ERASED})
        report = project.replay()
        assert (report.different, report.erased) == (1, len(SHOPS) - 1 if days == 0 else 0), report.lines()
        assert json.loads(json.dumps(report.as_dict()))["erased"] == report.erased


def _alter(project: Project) -> None:
    """Change the score of the first prediction in the log."""

    def change(rows: pa.Table) -> pa.Table:
        scores = [0.125, *rows["score"].to_pylist()[1:]]
        return rows.set_column(rows.column_names.index("score"), "score", pa.array(scores))

    assert rewrite_segments(
        open_prediction_log(project.state), lambda path: pq.read_metadata(path).num_rows > 0, change
    )
