"""The page about refused data: by reason, with rows and expectations, and corrected data is accepted from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.control_room.tests.shown_pages import NOWHERE, read_empty, show
from skewless.contract.errors import ConflictError, GateError, RequestError
from skewless.infra.ingest.materialization.skipped_rows import save_skipped
from skewless.infra.log.daily_counts import DAY_US, DailyCounts, RowCounts
from skewless.infra.log.log_columns import event_schema
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.project import Project
from skewless_control_room.page import Known, Part, Query, Unknown
from skewless_control_room.pages.refused import ACTIONS, PAGE, Refused, read_refused
from skewless_control_room.refused import RefusedLog, list_refused
from skewless_control_room.render import to_url
from tests.worlds.hostile_text import MARKUP
from tests.worlds.streams import SOURCE
from tests.worlds.trained import Sandbox, copy_project, later_rows, open_project

PARTS = ("logs", "sample", "batches", "batch_sample", "runs", "skipped")
ACCEPT = {action.name: action for action in ACTIONS}
HOSTILE = [*MARKUP, "x" * 1_000_000, "\u202eright to left\n\r\x00\x1b[31m", "\ud7ff\U0001f600"]


def known(part: Part[Any]) -> Any:  # noqa: ANN401 - of any part
    assert isinstance(part, Known), part
    return part.value


@pytest.fixture
def repo(trained: Path, tmp_path: Path) -> Path:
    """A copy whose online store does not run."""
    return copy_project(trained, tmp_path / "p")


def refused_of(project: Project, **values: str) -> Refused:
    return read_refused(project, Query(values=values))


def spoil_keys(place: Sandbox, n: int) -> pa.Table:
    """Publish rows without a key; return the rows as they should be."""
    good = later_rows(place, n)
    nulls = pa.nulls(n, good.schema.field("card_id").type)
    place.publish(good.set_column(good.column_names.index("card_id"), "card_id", nulls))
    return good


def test_refused_rows_are_counted_and_shown_and_corrected_ones_are_accepted(place: Sandbox) -> None:
    place.wait(60)
    good = spoil_keys(place, 3)
    place.project.materialize(check=False)
    (log,) = known(refused_of(place.project).logs).shown
    (reason,) = log.reasons
    assert (log.name, log.kind, reason.reason, reason.today, reason.rows) == (
        "card_days",
        "view",
        "key 'card_id' is null",
        3,
        3,
    )
    rows = known(refused_of(place.project).sample).rows
    assert [row.reason for row in rows] == ["key 'card_id' is null"] * 3
    assert {row.values["country"] for row in rows} == {str(text) for text in good["country"].to_pylist()}
    assert "Accept corrected rows" in show(place.project, PAGE, "/refused")
    # Corrected in the source: the preview says what would be accepted, and the action accepts it.
    path = place.repo / "data/card_days.parquet"
    pq.write_table(pq.read_table(path).slice(0, pq.read_table(path).num_rows - 3), path)
    place.publish(good)
    sentences = ACCEPT["accept-rows"].preview(place.project, {"view": "card_days"})
    assert "3 rows would be accepted, for 3 entities." in sentences
    assert any(text.startswith("All ") for text in sentences)
    done = ACCEPT["accept-rows"].run(place.project, {"view": "card_days"})
    assert done == "View card_days: 3 rows accepted, 0 rejected, 3 written to the online store."


def test_a_rejected_batch_names_its_expectation_until_its_source_is_corrected(place: Sandbox) -> None:
    place.wait(60)
    path, action = place.repo / "data/shop_risk.parquet", ACCEPT["accept-rows"]
    good = pq.read_table(path)
    rows = good.slice(0, 2).to_pylist()
    for row, shop in zip(rows, MARKUP, strict=False):
        row |= {"refund_share": 7.0, "shop_id": shop}
    pq.write_table(pa.concat_tables([good, pa.Table.from_pylist(rows, good.schema)]), path)
    for _ in range(2):
        with pytest.raises(GateError):
            place.project.materialize(["shop_risk"])
    (batch,) = known(refused_of(place.project).batches).shown
    assert (batch.view, batch.rows, batch.bad_rows, batch.accepted_later) == ("shop_risk", 2, 2, False)
    assert batch.failed == ["expect_column_values_to_be_between(min_value=0.0, max_value=1.0) on column 'refund_share'"]
    assert [row.values["shop_id"] for row in known(refused_of(place.project).batch_sample).rows] == [*MARKUP[:2]]
    html = show(place.project, PAGE, "/refused")
    assert "still refused" in html
    sentences = action.preview(place.project, {"view": "shop_risk"})
    assert any("refund_share" in text and text.startswith("The gate would reject") for text in sentences)
    with pytest.raises(ConflictError, match="refund_share"):
        action.run(place.project, {"view": "shop_risk"})
    pq.write_table(good, path)
    assert action.run(place.project, {"view": "shop_risk"}).startswith("View shop_risk: 0 rows accepted")


def test_an_unknown_view_or_source_is_not_accepted(place: Sandbox) -> None:
    for name in ("nowhere", *MARKUP[:2]):
        with pytest.raises(RequestError):
            ACCEPT["accept-rows"].preview(place.project, {"view": name})
        with pytest.raises(RequestError):
            ACCEPT["accept-rows"].run(place.project, {"view": name})
        with pytest.raises(RequestError):
            ACCEPT["accept-events"].preview(place.project, {"source": name})


def append_refused(project: Project, messages: list[str]) -> str:
    """Append refused messages to the log of an event source as a worker does; return the source's log."""
    n, partition = len(messages), "events/payments/e/0"
    raw = [message.encode(errors="surrogatepass") for message in messages]
    times = pa.array([project.clock.now_us()] * n, pa.int64())
    columns = {"__event_ts": times, "__ingest_ts": times, "__source_pos": pa.array(range(n), pa.int64())}
    columns |= {"__reject": pa.array([f"bad: {text[:80]}" for text in messages]), "__raw": pa.array(raw, pa.binary())}
    schema = event_schema(SOURCE)
    rows = [columns.get(field.name, pa.nulls(n, field.type)) for field in schema]
    table = pa.table(rows, schema=schema)
    segment = PartitionLog(project.state, partition).append(table)
    counts = RowCounts(accepted=10)
    counts.add_refused(table["__reject"], partition, segment.first)
    DailyCounts(project.state.database).add("events/payments", project.clock.now_us(), counts)
    return "events/payments"


def test_hostile_messages_stay_text_of_bounded_length(repo: Path) -> None:
    with open_project(repo) as project:
        for start in range(0, len(HOSTILE), 7):
            log = append_refused(project, HOSTILE[start : start + 7])
            rows = known(refused_of(project, log=log).sample).rows
            assert rows
            assert all(row.message is not None and len(row.message) <= 300 for row in rows)
            html = show(project, PAGE, "/refused", Query(values={"log": log}))
            assert "\u202e" not in html
            assert "\x00" not in html


def test_positions_in_the_stream_are_shown(repo: Path) -> None:
    with open_project(repo) as project:
        log = append_refused(project, ["a", "b"])
        rows = known(refused_of(project, log=log).sample).rows
        assert {(row.position, row.stream_position, row.message) for row in rows} == {(0, 0, "a"), (1, 1, "b")}


def logs_of(project: Project) -> dict[str, RefusedLog]:
    return {item.log: item for item in list_refused(project)}


def refuse(project: Project, log: str, days_ago: int, accepted: int, rows: int, reason: str = "r") -> None:
    counts = RowCounts(accepted=accepted)
    counts.add_refused(pa.chunked_array([pa.array([reason] * rows, pa.string())]), log, 0)
    DailyCounts(project.state.database).add(log, project.clock.now_us() - days_ago * DAY_US, counts)


def test_a_share_is_compared_with_the_usual_one_once_that_is_known(repo: Path) -> None:
    with open_project(repo) as project:
        refuse(project, "events/a", 0, 100, 50)
        refuse(project, "events/a", 1, 100, 0)
        assert {item.state for item in logs_of(project)["events/a"].reasons} == {"unknown"}
        refuse(project, "events/a", 2, 800, 1)
        (reason,) = logs_of(project)["events/a"].reasons
        assert (reason.state, reason.today, reason.rows) == ("unusual", 50, 51)
        assert (reason.share, reason.usual) == (50 / 150, 1 / 901)
        refuse(project, "events/b", 0, 100, 4)  # fewer than five
        refuse(project, "events/c", 0, 1_000, 20)
        for days_ago in (1, 2, 3):
            refuse(project, "events/b", days_ago, 100, 0)
            refuse(project, "events/c", days_ago, 1_000, 20)
        assert {name for name, log in logs_of(project).items() if log.is_unusual} == {"events/a"}
        assert known(refused_of(project).logs).unusual == {"events/a": "a"}
        assert "more than three times the usual share" in show(project, PAGE, "/refused")


def test_lists_are_bounded_and_each_log_is_on_one_page(repo: Path) -> None:
    with open_project(repo) as project:
        with project.state.database.transaction():
            for i in range(60):
                counts = RowCounts(accepted=5)
                reasons = [f"{j}{MARKUP[j % len(MARKUP)]}" for j in range(12) for _ in range(1 + j)]
                counts.add_refused(pa.chunked_array([pa.array(reasons)]), f"events/s{i:02}/e/0", 0)
                DailyCounts(project.state.database).add(f"events/s{i:02}", project.clock.now_us(), counts)
        for i in range(30):
            folder = project.state / "quarantine" / f"v{i}"
            folder.mkdir(parents=True)
            pq.write_table(pa.table({"id": [1], "__reject": ["x"], "__event_ts": [0]}), folder / "0.parquet")
        for i in range(250):
            save_skipped(project.state, f"v{i}", f"h{i}", "push", {MARKUP[i % len(MARKUP)]: 1}, 0)
        first = refused_of(project)
        logs = known(first.logs)
        assert (len(logs.shown), logs.total, logs.next) == (50, 60, "events/s49")
        assert all((len(log.reasons), log.more) == (5, 6) for log in logs.shown)
        rest = known(refused_of(project, after=logs.next).logs)
        assert [log.log for log in (*logs.shown, *rest.shown)] == [f"events/s{i:02}" for i in range(60)]
        assert (len(known(first.batches).shown), known(first.batches).total) == (20, 30)
        assert (len(known(first.skipped).shown), known(first.skipped).total) == (200, 250)
        assert show(project, PAGE, "/refused")


def test_runs_that_a_gate_refused_are_linked(repo: Path) -> None:
    with open_project(repo) as project:
        ledger = Ledger(project.state)
        ledger.begin_term(1, "h", 0)
        run = Run(id=RunId(job="materialize", tick_us=5), cause="c", token=1, started_us=5)
        ledger.start(run)
        ledger.end(run, "refused", 6, token=1, error=MARKUP[0])
        (shown,) = known(refused_of(project).runs)
        assert (shown.run, shown.error) == (str(run.id), MARKUP[0])
        assert to_url(f"/runs/{run.id}") in show(project, PAGE, "/refused")


def test_an_empty_project_and_a_database_that_is_away(tmp_path: Path, repo: Path) -> None:
    with read_empty(tmp_path / "empty") as project:
        shown = refused_of(project)
        assert isinstance(shown.logs, Unknown)
        assert show(project, PAGE, "/refused").count("Not known") == 2  # the views of the plan
    with open_project(repo, database_url=NOWHERE["database"]) as project:
        shown = refused_of(project)
        lost = {name for name in PARTS if isinstance(getattr(shown, name), Unknown)}
        assert lost == {"logs", "batches", "runs", "skipped"}
        assert show(project, PAGE, "/refused").count("Not known") == 4


def test_a_missing_log_file_and_a_corrupt_batch_spoil_only_their_parts(repo: Path) -> None:
    with open_project(repo) as project:
        log = append_refused(project, ["a"])
        for path in (repo / ".skewless/log/events").rglob("*.parquet"):
            path.unlink()
        folder = project.state / "quarantine/card_days"
        folder.mkdir(parents=True)
        (folder / "0.parquet").write_bytes(b"<script>")
        shown = refused_of(project, log=log)
        assert {name for name in PARTS if isinstance(getattr(shown, name), Unknown)} == {"sample", "batch_sample"}
        (batch,) = known(shown.batches).shown
        assert batch.failed[0].startswith("the file cannot be read")
        assert show(project, PAGE, "/refused", Query(values={"log": log})).count("Not known") == 2


def test_no_file_outside_the_quarantine_is_read(repo: Path) -> None:
    with open_project(repo) as project:
        for name in ("../../data/card_days", "/etc/passwd", "0"):
            assert known(refused_of(project, batch=name).batch_sample).rows == []
        assert known(refused_of(project, log="batch/../x").sample).rows == []
