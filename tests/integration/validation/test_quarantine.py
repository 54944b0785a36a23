"""A batch that a gate refused: kept whole, its bad rows with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import great_expectations.expectations as gxe
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from skewless.contract.clock import ManualClock
from skewless.contract.dtypes import DType
from skewless.contract.errors import GateError
from skewless.contract.plan import View
from skewless.infra.log.log_columns import EVENT, INGEST, REJECT, RUN
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from skewless.validation.checks import SourceChecks
from tests.worlds.plans import make_view

VIEW = make_view("v")
N = 30
Refuse = Callable[[Sequence[Expectation]], pa.Table]


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    path = tmp_path / "it's a draft) .parquet"
    table = pa.table(
        {
            "id": pa.array(range(N), pa.int64()),
            "x": [None if i % 7 == 0 else float(i) for i in range(N)],
            EVENT: pa.array([10**15 + i for i in range(N)], pa.int64()),
            REJECT: ["no key" if i == 3 else None for i in range(N)],
            INGEST: pa.array([1] * N, pa.int64()),
            RUN: pa.array([2] * N, pa.int64()),
        }
    )
    pq.write_table(table, path, row_group_size=8)
    return path


def checks_of(folder: Path, suite: Sequence[Expectation], current: View = VIEW) -> SourceChecks:
    """Return checks with one suite, for the view ``v`` of which one version is in force."""
    checks = SourceChecks(
        repo=folder,
        state=ProjectState(folder / "state"),
        connection=connect(folder / "spill"),
        clock=ManualClock(10**16),
        known=frozenset({"v"}),
        current=frozenset({current.hash}),
    )
    vars(checks)["suites"] = {"v": list(suite)}
    return checks


@pytest.fixture
def refuse(tmp_path: Path, staged: Path) -> Refuse:
    """What has a batch refused by a suite, and returns what stands in quarantine."""

    def work(suite: Sequence[Expectation]) -> pa.Table:
        for _ in range(2):  # refused again, kept once
            with pytest.raises(GateError):
                checks_of(tmp_path, suite).check_rows(VIEW, staged)
        (path,) = (tmp_path / "state/quarantine/v").iterdir()
        return pq.read_table(path)

    return work


def reasons(kept: pa.Table) -> dict[int, str | None]:
    return dict(zip(kept["id"].to_pylist(), kept[REJECT].to_pylist(), strict=True))


def test_each_bad_row_says_what_it_broke(refuse: Refuse) -> None:
    kept = refuse(
        [
            gxe.ExpectColumnValuesToNotBeNull(column="x"),
            gxe.ExpectColumnValuesToBeBetween(column="x", max_value=25.0),
            gxe.ExpectColumnValuesToBeBetween(column="id", max_value=28),
        ]
    )
    assert set(kept.column_names) == {"id", "x", EVENT, REJECT}
    assert kept["id"].to_pylist() == [i for i in range(N) if i != 3]
    for i, reason in reasons(kept).items():
        assert ("not_be_null" in (reason or "")) == (i % 7 == 0), i
        assert ("'x'" in (reason or "")) == (i % 7 == 0 or i > 25), i
        assert ("'id'" in (reason or "")) == (i > 28), i
        assert reason or (i % 7 and i <= 25)


@pytest.mark.parametrize(
    "closing",
    [
        gxe.ExpectTableRowCountToEqual(value=7),
        gxe.ExpectColumnMeanToBeBetween(column="x", max_value=1.0),
        gxe.ExpectColumnValuesToBeBetween(column="gone", max_value=1.0),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["id", "gone"]),
    ],
    ids=lambda item: item.expectation_type,
)
def test_a_batch_that_is_bad_as_a_whole_is_kept_without_reasons(refuse: Refuse, closing: Expectation) -> None:
    kept = refuse([closing])
    assert len(kept) == N - 1
    assert kept[REJECT].null_count == N - 1


def test_a_warning_is_no_reason(refuse: Refuse) -> None:
    warning = gxe.ExpectColumnValuesToNotBeNull(column="x", severity=FailureSeverity.WARNING)
    kept = refuse([warning, gxe.ExpectColumnValuesToBeBetween(column="x", max_value=25.0)])
    assert [i for i, reason in reasons(kept).items() if reason] == [26, 27, 29]


IN_FORCE = make_view("v", features={"x": DType.FLOAT64, "more": DType.FLOAT64})


@pytest.mark.parametrize(
    "demand",
    [
        gxe.ExpectColumnValuesToNotBeNull(column="more"),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="x", column_B="more"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["id", "more"]),
        gxe.ExpectTableColumnsToMatchSet(column_set=["id", "x", "event", "more"], exact_match=False),
    ],
    ids=lambda item: item.expectation_type,
)
def test_8_2_what_is_demanded_of_columns_that_an_older_version_lacks_is_not_demanded_of_it(
    tmp_path: Path, staged: Path, demand: Expectation
) -> None:
    checks_of(tmp_path, [demand], IN_FORCE).check_rows(VIEW, staged)
    assert not (tmp_path / "state/quarantine").exists()


def test_8_2_what_is_demanded_of_the_columns_that_it_has_holds_for_every_version(tmp_path: Path, staged: Path) -> None:
    for demand in (gxe.ExpectColumnValuesToNotBeNull(column="x"), gxe.ExpectTableRowCountToEqual(value=7)):
        with pytest.raises(GateError):
            checks_of(tmp_path, [demand], IN_FORCE).check_rows(VIEW, staged)


@pytest.mark.parametrize(
    "demand",
    [
        gxe.ExpectTableColumnCountToEqual(value=N),
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=["id", "x"]),
        gxe.ExpectTableColumnsToMatchSet(column_set=["id", "x"], exact_match=True),
    ],
    ids=lambda item: item.expectation_type,
)
def test_8_2_the_shape_of_the_table_is_not_demanded_of_an_older_version(
    tmp_path: Path, staged: Path, demand: Expectation
) -> None:
    checks_of(tmp_path, [demand], IN_FORCE).check_rows(VIEW, staged)
