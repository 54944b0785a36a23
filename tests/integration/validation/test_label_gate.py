"""Labels are judged as they become known: what passed is not judged again, what failed is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import great_expectations.expectations as gxe
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from great_expectations.expectations.expectation import Expectation

from skewless.contract.clock import to_us
from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.labels import label_source
from skewless.validation.gate_report import GateReport
from skewless.validation.label_gate import LabelGate

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPEC = ModelSpec(
    name="m",
    service="s",
    labels=LabelSource(path="labels", event_time="at", known_time="known", label="y"),
    algorithm="lightgbm",
    split=Split(test=DAY),
)
SINGLE = gxe.ExpectColumnValuesToBeBetween(column="amount", min_value=0, max_value=100)
MEAN = gxe.ExpectColumnMeanToBeBetween(column="y", min_value=0.4, max_value=0.6)
UNIQUE = gxe.ExpectColumnValuesToBeUnique(column="amount")


class LabelFolder:
    """Label files, one row a day, and the gate before them."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.connection = duckdb.connect()
        self.gate = LabelGate(repo=repo, state=ProjectState(repo / "state"), connection=self.connection)
        (repo / "labels").mkdir()

    def write(self, file: str, first: int, amounts: Sequence[float]) -> None:
        days = [START + DAY * (first + i) for i in range(len(amounts))]
        # Alternating over all days, so that a single new day alone has no mean of a half.
        labels = [float((first + i) % 2) for i in range(len(amounts))]
        kind = pa.timestamp("us", tz="UTC")
        table = pa.table(
            {
                "amount": list(amounts),
                "y": labels,
                "at": pa.array(days, kind),
                "known": pa.array([day + DAY / 2 for day in days], kind),
            }
        )
        pq.write_table(table, self.repo / "labels" / file)

    def check(
        self, day: int, suite: Sequence[Expectation] = (SINGLE, MEAN, UNIQUE), *, everything: bool = False
    ) -> GateReport:
        return self.gate.check(SPEC, suite, to_us(START + DAY * day), everything=everything)


@pytest.fixture
def label_folder(tmp_path: Path) -> LabelFolder:
    label_folder = LabelFolder(tmp_path)
    label_folder.write("a.parquet", 0, [float(i) for i in range(20)])
    return label_folder


def test_only_what_became_known_is_judged_row_by_row(label_folder: LabelFolder) -> None:
    first = label_folder.check(10)
    assert (first.n_rows, first.since_us, first.success) == (10, None, True)
    assert first.not_yet_known == 10
    second = label_folder.check(11)
    assert (second.n_rows, second.since_us, second.success) == (1, to_us(START + DAY * 10), True)
    assert [result.expectation for result in second.results] == [
        item.expectation_type for item in (SINGLE, MEAN, UNIQUE)
    ]
    last = label_folder.check(11)
    assert (last.n_rows, last.not_yet_known) == (0, 9)
    assert label_folder.check(11, everything=True).n_rows == 11


def test_what_failed_is_judged_again_until_it_passes(label_folder: LabelFolder) -> None:
    assert label_folder.check(10).success
    label_folder.write("b.parquet", 20, [50.0, 999.0])
    assert label_folder.check(21).success  # 999 is not known yet
    for day in (22, 23):
        failed = label_folder.check(day)
        assert not failed.success
        assert (failed.n_rows, failed.failed[0].sample) == (1, (999.0,))
    label_folder.write("b.parquet", 20, [50.0, 60.0])
    passed = label_folder.check(24)
    assert (passed.success, passed.n_rows) == (True, 2)  # all of the file that changed
    assert label_folder.check(25).n_rows == 0


def test_an_old_row_that_was_corrected_is_judged(label_folder: LabelFolder) -> None:
    assert label_folder.check(20).success
    label_folder.write("a.parquet", 0, [*(float(i) for i in range(19)), -5.0])
    assert label_folder.check(20).failed[0].sample == (-5.0,)


def test_what_is_said_of_the_table_is_judged_on_all_of_it(label_folder: LabelFolder) -> None:
    assert label_folder.check(10).success
    # The eleventh day alone has the mean 0, and no duplicate.
    assert label_folder.check(11).success
    label_folder.write("b.parquet", 20, [7.0])
    report = label_folder.check(21)
    assert [result.expectation for result in report.failed] == [UNIQUE.expectation_type]


@pytest.mark.parametrize("changed", ["suite", "labels", "clock"])
def test_another_question_is_asked_of_all_rows(label_folder: LabelFolder, changed: str) -> None:
    assert label_folder.check(10).success
    if changed == "suite":
        again = label_folder.check(10, (SINGLE, MEAN))
    elif changed == "clock":
        again = label_folder.check(9, (SINGLE,))
    else:
        spec = replace(SPEC, labels=replace(label_source(SPEC), known_time="at"))
        again = label_folder.gate.check(spec, (SINGLE, MEAN, UNIQUE), to_us(START + DAY * 10), everything=False)
    assert again.since_us is None
    assert again.n_rows >= 9


def test_a_memory_that_is_unknown_or_gone_only_costs_time(label_folder: LabelFolder) -> None:
    assert label_folder.check(10).success
    memory = Documents(label_folder.gate.state.database, "passed_labels")
    bodies: list[object] = [{}, [], 3, "x"]
    for body in bodies:
        assert label_folder.check(10).n_rows == 0
        memory.put(SPEC.name, body)
        assert label_folder.check(10).n_rows == 10
    assert memory.delete(SPEC.name)
    assert label_folder.check(10).n_rows == 10


def test_without_a_suite_nothing_is_remembered(label_folder: LabelFolder) -> None:
    assert label_folder.check(10, ()).n_rows == 10
    assert not (label_folder.repo / "state").exists()
