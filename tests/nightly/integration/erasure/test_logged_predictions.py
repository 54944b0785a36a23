"""An erasure removes predictions and outcomes; replay proves the others, or says that their rows were erased."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.records.outcomes.log import open_outcome_log
from skewless.infra.records.predictions.segments import PREDICTIONS, SCHEMA, prediction_spool
from skewless.project import Project
from tests.worlds.erasures import ERASED, NOW, SHOPS, USERS, delete_in_sources, fill, write_repo


def test_replay_before_and_after(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "p", "p")
    with Project(repo) as project:
        fill(project)
        for model in ("both", "shops"):
            project.train(model)
        rows = [{"user": user, "shop": shop} for user in USERS for shop in SHOPS]
        replies = project.predict("both", rows)["id"].to_pylist()
        replies += project.predict("shops", [{"shop": shop} for shop in SHOPS])["id"].to_pylist()
        outcomes = [{"prediction_id": reply, "label": 1} for reply in (replies[0], replies[len(rows) - 1])]
        outcomes += [
            {"user": row["user"], "shop": row["shop"], "event_time": "2026-01-15T11:00:00Z", "label": 0}
            for row in (rows[1], rows[-1])
        ]
        for number, outcome in enumerate(outcomes):
            file = tmp_path / f"{number}.csv"
            file.write_text(",".join(outcome) + "\n" + ",".join(map(str, outcome.values())) + "\n")
            project.feedback(file, model=None if "prediction_id" in outcome else "both")
        n = len(rows) + len(SHOPS)
        before = project.replay()
        assert (before.compared, before.different, before.erased) == (n, 0, 0), before.lines()
        old = pa.concat_tables(map(pq.read_table, PartitionLog(project.state, PREDICTIONS).files()))
        late = old.filter(pc.match_substring(old["inputs"], ERASED))
        delete_in_sources(repo)
        receipt = project.erase({"user": ERASED})
        assert (receipt.predictions, receipt.outcomes) == (len(SHOPS), 2)
        after = project.replay()
        assert after.compared == n - len(SHOPS)
        # All others read windows of the shops, to which the erased user's events counted.
        assert (after.different, after.erased, after.ok) == (0, after.compared, True), after.lines()
        assert any("cannot be proven" in line for line in after.lines())
        logged = [
            row
            for file in PartitionLog(project.state, PREDICTIONS).files()
            for row in pq.read_table(file)["inputs"].to_pylist()
        ]
        assert len(logged) == after.compared
        assert not any(ERASED in text for text in logged)
        kept = [row for file in open_outcome_log(project.state).files() for row in pq.read_table(file).to_pylist()]
        assert len(kept) == 2
        project.predict("both", rows[len(SHOPS) :])
        proven = project.replay()
        assert (proven.compared, proven.different, proven.erased) == (2 * after.compared - len(SHOPS), 0, after.erased)
        assert (after.proven, proven.proven) == (0, len(rows) - len(SHOPS))
        assert any(f"; {proven.proven} (" in line for line in proven.lines()), proven.lines()
        # Another machine ships its predictions late: the rows that they name are erased.
        spool = prediction_spool(project.state)
        spool.store(NOW, late.cast(SCHEMA))
        shipped = project.replay()
        assert (shipped.compared - proven.compared, shipped.different) == (len(SHOPS), 0), shipped.lines()
        assert shipped.erased - proven.erased == len(SHOPS)
        assert project.erase({"user": ERASED}).predictions == len(SHOPS)
        assert project.replay().compared == proven.compared
        project.private.stop()
