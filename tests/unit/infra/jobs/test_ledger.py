"""The ledger: ticks are claimed once, ends are said once, and who is fenced off writes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from skewless.contract.errors import ConflictError, RequestError, StoreError
from skewless.infra.platform.jobs.ledger import Ledger, Request, Requests
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records
from tests.servers.postgres import state_of


@pytest.fixture
def ledger(project_database: Database) -> Ledger:
    ledger = Ledger(state_of(project_database))
    ledger.begin_term(1, "first", 0)
    return ledger


def run(tick_us: int, job: str = "drift m", token: int = 1, attempt: int = 1) -> Run:
    return Run(
        id=RunId(job=job, tick_us=tick_us, attempt=attempt),
        cause="due",
        token=token,
        started_us=7,
        inputs={"words": []},
    )


def names(runs: list[Run]) -> list[tuple[str, int, int]]:
    return [(run.id.job, run.id.tick_us, run.id.attempt) for run in runs]


def test_a_run_is_as_it_was_written(ledger: Ledger) -> None:
    assert ledger.start(run(5))
    assert ledger.get(run(5).id) == run(5)
    assert ledger.open() == [run(5)]
    ended = ledger.end(run(5), "failed", 9, token=1, outputs={"rows": 3}, error="no \0 room")
    assert (ended.state, ended.ended_us, ended.outputs, ended.error) == ("failed", 9, {"rows": 3}, "no \0 room")
    assert ledger.get(run(5).id) == ended
    assert ledger.open() == []


def test_a_tick_is_claimed_once_among_many(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: ledger.start(run(5)), range(8)))
    assert sorted(won) == [False] * 7 + [True]


def test_the_first_word_on_an_end_holds(ledger: Ledger) -> None:
    ledger.start(run(5))
    ledger.end(run(5), "lost", 8, token=1)
    assert ledger.end(run(5), "done", 9, token=1).state == "lost"


def test_after_a_later_term_the_one_before_writes_nothing(ledger: Ledger, project_database: Database) -> None:
    ledger.start(run(5))
    other = Ledger(state_of(project_database))
    other.begin_term(4, "second", 1)
    for write in (
        lambda: ledger.start(run(6)),
        lambda: ledger.end(run(5), "done", 9, token=1),
        lambda: ledger.register_job("new", 1, 9),
        lambda: ledger.begin_term(4, "third", 9),
        lambda: ledger.begin_term(3, "third", 9),
    ):
        with pytest.raises(ConflictError) as caught:
            write()
        assert "token 4" in caught.value.problem
    assert ledger.read_latest_first() == [run(5)]
    terms = Records(project_database, "leader_term").read_latest_first("scheduler")
    assert [body["holder"] for _, body in terms] == ["second", "first"]
    assert ledger.register_job("new", 4, 11) == 11
    assert other.end(run(5), "lost", 9, token=4).state == "lost"


def test_runs_come_in_the_order_of_their_ticks(ledger: Ledger) -> None:
    rows = [("a", 1, 1), ("a", 1_000_000, 1), ("a", 1_000_000, 2), ("a", 1_000_000, 10), ("drift m", 1_000_000, 1)]
    rows += [("a", 1_000_001, 1), ("b", 2_000_000, 1)]
    for job, tick_us, attempt in reversed(rows):
        ledger.start(run(tick_us, job, attempt=attempt))
    assert names(ledger.read_latest_first()) == rows[::-1]
    assert names(ledger.read_latest_first(limit=2)) == [("b", 2_000_000, 1), ("a", 1_000_001, 1)]
    assert names(ledger.read_latest_first("a")) == [row for row in rows[::-1] if row[0] == "a"]
    ledger.end(run(1, "a"), "done", 2, token=1)
    assert names(ledger.open()) == rows[1:]
    assert names(ledger.read_latest_first(state="done")) == rows[:1]
    assert names(ledger.read_latest_first("b", state="done")) == []
    assert (ledger.latest_attempt("a", 1_000_000), ledger.latest_attempt("a", 3)) == (10, 0)
    assert ledger.latest_ticks("a", 3) == [1_000_000, 1_000_000, 1_000_001]


def test_a_job_is_known_since_it_was_first_seen(ledger: Ledger) -> None:
    assert [ledger.register_job("a", 1, 5), ledger.register_job("a", 1, 9)] == [5, 5]
    assert ledger.read_latest_first() == []


def test_pruning_keeps_what_is_young_open_or_the_newest_of_its_job(ledger: Ledger) -> None:
    for tick_us, job in ((1, "a"), (2, "a"), (3, "a"), (9, "a"), (1, "b"), (8, "c")):
        ledger.start(run(tick_us, job))
    ledger.start(run(8, "c", attempt=2))
    for tick_us, job in ((1, "a"), (3, "a"), (9, "a"), (1, "b"), (8, "c")):
        ledger.end(run(tick_us, job), "done", 10, token=1)
    assert ledger.prune(9) == 3
    assert names(ledger.read_latest_first()[::-1]) == [("b", 1, 1), ("a", 2, 1), ("c", 8, 2), ("a", 9, 1)]


def test_what_is_not_there_or_damaged_is_said(ledger: Ledger, project_database: Database) -> None:
    with pytest.raises(RequestError, match="not in the ledger"):
        ledger.get(run(5).id)
    ledger.start(run(5))
    project_database.execute("UPDATE job_runs SET start_body = ?", "{")
    with pytest.raises(StoreError, match=r"run 'drift:m@19700101T000000.000005Z': is corrupt"):
        ledger.get(run(5).id)


@pytest.fixture
def long_ledger(ledger: Ledger, project_database: Database) -> Ledger:
    """A ledger of 20,000 runs of 20 jobs, each with a failure long ago and an open run."""
    with project_database.transaction():
        for i in range(20_000):
            state = "failed" if i < 20 else "running" if i >= 19_980 else "done"
            project_database.execute(
                "INSERT INTO job_runs VALUES (?, ?, 1, ?, ?, ?)", f"drift m{i % 20}", i // 20, state, START, END
            )
    project_database.execute("ANALYZE")
    return ledger


START, END = '{"cause": "due", "inputs": {}, "started_us": 1, "token": 1}', "{}"


def test_a_span_is_a_run_without_its_outputs(ledger: Ledger) -> None:
    error = 'no "room"\n\\ for \u202e' + "ü" * 1_000
    for tick_us, job, words in ((5, "drift m", error), (6, "drift", None), (7, "drifting", ""), (8, "drift m", None)):
        ledger.start(run(tick_us, job))
        ledger.end(run(tick_us, job), "failed", 9, token=1, outputs={"rows": "x" * 5_000}, error=words)
    ledger.start(run(9))
    spans = ledger.read_spans(5, 10, limit=9)
    assert [(span.id, span.state, span.ended_us) for span in spans] == [
        (run(9).id, "running", None),
        *(
            (run(tick_us, job).id, "failed", 9)
            for tick_us, job in ((8, "drift m"), (7, "drifting"), (6, "drift"), (5, "drift m"))
        ),
    ]
    assert [span.error for span in spans[:4]] == [None, None, None, None]
    assert error.startswith((spans[4].error or "")[:100])
    assert 100 < len(spans[4].error or "") < 700
    assert (spans[4].cause, spans[4].started_us) == ("due", 7)
    assert [span.id.tick_us for span in ledger.read_spans(5, 9, kind="drift", limit=9)] == [8, 6, 5]
    assert [span.id.tick_us for span in ledger.read_spans(5, 9, before=spans[1].id, limit=2)] == [7, 6]
    assert ledger.read_open(5) == spans[:1]
    assert ledger.latest_span("drift m", "failed") == spans[1]
    assert ledger.latest_span("parity") is None
    assert ledger.read_attempts(run(5).id, 5) == spans[4:]


def test_no_query_reads_more_of_a_long_ledger_than_it_returns(
    long_ledger: Ledger, project_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, query = list[str](), project_database.query
    explain = "EXPLAIN QUERY PLAN" if (is_sqlite := "skewless.db" in project_database.name) else "EXPLAIN"

    def explained(sql: str, *values: object) -> object:
        plans.extend(str(row[-1]) for row in query(f"{explain} {sql}", *values))  # type: ignore[arg-type]
        return query(sql, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(project_database, "query", explained)
    jobs, states = (None, "drift m3"), (None, "failed", "running", "cancelled")
    found = {(job, state): long_ledger.read_latest_first(job, state=state, limit=5) for job in jobs for state in states}
    assert {key: len(runs) for key, runs in found.items()} == {
        (None, None): 5, (None, "failed"): 5, (None, "running"): 5, (None, "cancelled"): 0,
        ("drift m3", None): 5, ("drift m3", "failed"): 1, ("drift m3", "running"): 1, ("drift m3", "cancelled"): 0,
    }  # fmt: skip
    assert found["drift m3", "failed"][0].id.tick_us == 0
    long_ledger.latest_ticks("drift m3", 5)
    long_ledger.latest_attempt("drift m3", 5)
    long_ledger.get(RunId(job="drift m3", tick_us=5))
    spans = {
        (job, state): long_ledger.read_spans(0, 10**9, job=job, state=state, limit=5)
        for job in jobs
        for state in states
    }
    assert {key: [span.id for span in value] for key, value in spans.items()} == {
        key: [run.id for run in value] for key, value in found.items()
    }
    long_ledger.read_spans(0, 10**9, kind="drift", before=RunId(job="drift m3", tick_us=500), limit=5)
    long_ledger.latest_span("drift m3", "done")
    long_ledger.read_open(5)
    long_ledger.read_attempts(RunId(job="drift m3", tick_us=5), 5)
    assert plans
    for plan in plans:
        assert "Seq Scan" not in plan, plans
        if is_sqlite:
            assert "INDEX" in plan, plans
            assert "TEMP B-TREE" not in plan, plans
    assert long_ledger.prune(999) == 19_980
    assert len(long_ledger.read_latest_first()) == 20


def test_a_request_is_open_once_until_it_is_handled(project_database: Database) -> None:
    requests = Requests(state_of(project_database))
    late = Request(kind="cancel", run_id=run(9).id, cause="too late")
    early = Request(kind="start", run_id=run(5).id, cause="because of \0 and 'x'")
    requests.put(late)
    requests.put(early)
    with pytest.raises(ConflictError, match="already has a request to start"):
        requests.put(early)
    assert requests.open() == [early, late]
    requests.remove(early)
    requests.remove(early)
    assert requests.open() == [late]
