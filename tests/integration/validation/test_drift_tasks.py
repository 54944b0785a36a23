"""Drift by tasks: the report of one process, to the last bit, however the log is divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.records.predictions.live_predictions import ServedScores, mean_repeats
from skewless.infra.records.predictions.segments import open_prediction_log
from skewless.operations.models.drift import check_drift
from skewless.operations.models.quality import labelled_log
from skewless.operations.models.versions import open_champion
from skewless.project import Project
from skewless.validation import drift_tasks
from skewless.validation.drift.verdicts import DriftReport
from skewless.validation.drift_tasks import measure_window
from tests.integration.validation.test_live_quality import entity, say
from tests.unit.infra.predictions.merges import import_file
from tests.worlds.killer import killing_workers
from tests.worlds.trained import MODEL, SECOND, Sandbox, ask, opened_copy
from tests.worlds.workers import WORKERS, TwiceExecutor

SEGMENTS = 16
PREDICTIONS = sum(5 + i % 3 for i in range(SEGMENTS))


@pytest.fixture(scope="module")
def segmented_repo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of many segments, whose predictions use some feature rows again and again, and some none; only copied."""
    repo = tmp_path_factory.mktemp("segmented") / "p"
    with opened_copy(trained, repo) as place:
        place.wait(60)
        for i in range(SEGMENTS):
            place.predict(
                [{**row, "shop_id": ("shop-01", "nowhere", row["shop_id"])[i % 3]} for row in ask(5 + i % 3, i)]
            )
        place.wait(1)
    return repo


@pytest.fixture
def segmented(segmented_repo: Path, tmp_path: Path) -> Iterator[Sandbox]:
    with opened_copy(segmented_repo, tmp_path / "p") as place:
        assert len(place.log_files()) == SEGMENTS
        yield place


def measure(
    place: Sandbox, workers: int, rows: int = 0, *, until_us: int | None = None, tasks: int = 0, twice: bool = False
) -> DriftReport:
    """Return the drift that another process would measure, with a number of tasks."""
    clock = f"file:{place.repo}/.skewless/clock"
    with closing(Project(place.repo, clock=clock, engine_rows=rows, engine_workers=workers)) as project:
        if twice:
            project.__dict__["executor"] = TwiceExecutor(WORKERS)
        elif workers == WORKERS.workers:
            project.__dict__["executor"] = WORKERS
        steps: list[tuple[str, int, int]] = []
        project.on_progress = lambda *step: steps.append(step)
        report = check_drift(project, MODEL, until_us=until_us, dry_run=True)
        assert len(steps) == tasks
        assert [step[1:] for step in steps[-1:]] == [(PREDICTIONS, PREDICTIONS)] * bool(tasks)
        assert list(project.state.storage.list_objects(FOLDER)) == []
        return report


def test_the_report_is_that_of_one_process(segmented: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    until_us = segmented.now_us()
    expected = measure(segmented, 1, rows=10_000_000, until_us=until_us)
    repeats = {column.name: column.repeats for column in expected.features}
    assert expected.rows == PREDICTIONS
    assert repeats["shop_risk__refund_share"] > 1.0
    # The test below has as many tasks as segments.
    for segments, workers, tasks in ((SEGMENTS, 1, 1), (5, 2, 4)):
        monkeypatch.setattr(drift_tasks, "_TASK_SEGMENTS", segments)
        report = measure(segmented, workers, until_us=until_us, tasks=tasks)
        assert report.as_dict() == expected.as_dict()
        assert repr(report) == repr(expected)
    assert repr(measure(segmented, 2, until_us=until_us, tasks=4, twice=True)) == repr(expected)


@pytest.mark.soak  # in make test, test_engine_reads.py has killed workers; tasks that are run twice are above
def test_killed_workers_do_not_change_the_report(segmented: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_tasks, "_TASK_SEGMENTS", 1)
    until_us = segmented.now_us()
    expected = measure(segmented, 1, rows=10_000_000, until_us=until_us)
    with killing_workers(3) as are_left:
        assert repr(measure(segmented, 2, until_us=until_us, tasks=SEGMENTS)) == repr(expected)
        while are_left():
            assert repr(measure(segmented, 2, until_us=until_us, tasks=SEGMENTS)) == repr(expected)


def labels_of(place: Sandbox, rows: int, until_us: int) -> list[float]:
    """Return the labels that drift counts, sorted."""
    with closing(Project(place.repo, engine_rows=rows, engine_workers=2)) as project:
        project.__dict__["executor"] = WORKERS
        package = open_champion(project, MODEL)
        scores = ServedScores(
            state=project.state,
            connection=project.connection,
            model=MODEL,
            version=package.version,
            since_us=0,
            until_us=until_us,
        )
        labelled = labelled_log(project, MODEL)
        measures = measure_window(package, scores, labelled=labelled, known_by_us=until_us, engine=project.engine)
        return sorted(measures.labels.tolist())


def test_labels_are_those_of_the_labelled_log(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_tasks, "_TASK_SEGMENTS", 1)
    began_us, ids = place.now_us(), list[str]()
    for i in range(6):
        rows = [row | {"paid_at": began_us + 60 * SECOND} for row in ask(4, i % 2)]
        ids += place.predict(rows).ids
        place.wait(50)
    # Those of another version, and those of a shadow, have labels of their own.
    for name, value in (("version", "000002"), ("role", "shadow")):
        log_file = place.log_files()[3]
        other = pq.read_table(log_file)
        column = pa.array([value] * other.num_rows, other.schema.field(name).type)
        written = place.state / f"{log_file.name[:20]}-{name}.parquet"
        pq.write_table(other.set_column(other.column_names.index(name), name, column), written)
        import_file(place.project.state, written)
    path = place.repo / "data/payments.parquet"
    table, when = pq.read_table(path), pa.array([began_us + 60 * SECOND] * 4).cast(pa.timestamp("us", tz="UTC"))
    known = pa.array([began_us + SECOND] * 4).cast(pa.timestamp("us", tz="UTC"))
    new = {name: [row[name] for row in rows] for name in ("card_id", "shop_id", "amount")}
    added = pa.table({**new, "paid_at": when, "known_at": known, "fraud": [1, 0, 1, 1]})
    pq.write_table(pa.concat_tables([table, added.select(table.column_names).cast(table.schema)]), path)
    keys = {name: rows[1][name] for name in ("card_id", "shop_id")}
    say(
        place,
        {"prediction_id": ids[0], "label": 1},
        {"prediction_id": ids[5], "label": None},
        {"prediction_id": "of nobody", "label": 1},
        {"prediction_id": ids[9], "label": 3},
        entity(keys, began_us + 70 * SECOND, label=2),
        entity(rows[2], began_us + 160 * SECOND, label=4),
        entity(rows[2] | {"amount": 0.1}, began_us, label=5),
    )
    place.wait(1)
    until_us = place.now_us()
    champion = open_champion(place.project, MODEL).version
    found = labelled_log(place.project, MODEL).read(since_us=0, until_us=until_us, known_by_us=until_us)
    served = (pc.field("version") == champion) & (pc.field("role") != "shadow") & pc.field("label").is_valid()
    expected = sorted(found.filter(served)["label"].to_pylist())
    assert len(expected) > 4
    assert len(found.filter(pc.field("label").is_valid())) > len(expected)
    assert labels_of(place, 10_000_000, until_us) == expected
    assert labels_of(place, 0, until_us) == expected


def test_a_window_without_predictions_has_none(segmented: Sandbox) -> None:
    until_us = segmented.now_us() - 3_600_000_000
    with closing(Project(segmented.repo, engine_rows=0, engine_workers=2)) as project:
        project.__dict__["executor"] = WORKERS
        report = check_drift(project, MODEL, until_us=until_us, dry_run=True)
    assert repr(report) == repr(check_drift(segmented.project, MODEL, until_us=until_us, dry_run=True))
    assert report.rows == 0


def test_an_altered_file_fails_as_in_one_process(segmented: Sandbox) -> None:
    segmented.log_files()[3].write_bytes(b"PAR1")
    for rows in (10_000_000, 0):
        with pytest.raises(StoreError, match="log file"):
            measure(segmented, 1, rows)


def test_repeats_of_parts_are_those_of_the_whole(segmented: Sandbox) -> None:
    segments = open_prediction_log(segmented.project.state).segments()
    (version,) = {name for file in segmented.log_files() for name in pq.read_table(file)["version"].to_pylist()}

    def part(objects: list[int] | None) -> ServedScores:
        return ServedScores(
            state=segmented.project.state,
            connection=segmented.project.connection,
            model=MODEL,
            version=version,
            since_us=0,
            until_us=2**62,
            only=None if objects is None else [segments[i].stored for i in objects],
        )

    whole = mean_repeats(segmented.project.connection, [part(None).uses()])
    for size in (1, 9, SEGMENTS):
        parts = [list(range(i, min(i + size, SEGMENTS))) for i in range(0, SEGMENTS, size)]
        uses = [part(objects).uses() for objects in np.random.default_rng(size).permutation(np.array(parts, object))]
        assert mean_repeats(segmented.project.connection, uses) == whole
    reads = [
        read for file in segmented.log_files() for reads in pq.read_table(file)["reads"].to_pylist() for read in reads
    ]
    counts = Counter((read["view"], read["hash"], read["seq"]) for read in reads)
    for view, found in whole.items():
        own = {key: n for key, n in counts.items() if key[0] == view}
        squares = sum(n * n if key[2] >= 0 else n for key, n in own.items())
        assert found == float(Fraction(squares, sum(own.values())))


def test_counts_beyond_floats_are_exact(segmented: Sandbox) -> None:
    n = 2**60 + 1
    uses = pa.table({"view": ["v", "v"], "hash": ["a", "b"], "seq": [0, 0], "n": [n, n]})
    assert mean_repeats(segmented.project.connection, [uses]) == {"v": float(Fraction(2 * n * n, 2 * n))}
    once = pa.table({"view": ["v"], "hash": ["a"], "seq": [0], "n": [n]})
    halves = [once, once.set_column(3, "n", pa.array([1]))]
    assert mean_repeats(segmented.project.connection, halves) == {"v": float(n + 1)}
