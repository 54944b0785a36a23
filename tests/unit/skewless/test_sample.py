"""The sample data of the templates: the same at any hour, and nothing in it changes within the day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.operations.sample import DAY, HOUR, write_sample

MIDNIGHT = 20_454 * DAY


def tables(template: str, folder: Path, now_us: int) -> dict[str, pa.Table]:
    return {name: pq.read_table(folder / name) for name in write_sample(template, folder, now_us)}


@pytest.mark.parametrize("template", ["fraud", "delay", "churn"])
def test_data_do_not_depend_on_the_hour(template: str, tmp_path: Path) -> None:
    early = tables(template, tmp_path / "early", MIDNIGHT)
    late = tables(template, tmp_path / "late", MIDNIGHT + DAY - 1)
    assert early == late


@pytest.mark.parametrize("template", ["fraud", "delay", "churn"])
def test_a_day_later_all_times_are_a_day_later(template: str, tmp_path: Path) -> None:
    today = tables(template, tmp_path / "today", MIDNIGHT)
    tomorrow = tables(template, tmp_path / "tomorrow", MIDNIGHT + DAY + HOUR)
    for name, table in today.items():
        for column in table.column_names:
            if pa.types.is_timestamp(table[column].type):
                assert (micros(tomorrow[name], column) - micros(table, column) == DAY).all(), (name, column)
            else:
                assert tomorrow[name][column] == table[column]


@pytest.mark.parametrize("template", ["fraud", "delay", "churn"])
def test_no_row_and_no_label_becomes_known_within_the_day(template: str, tmp_path: Path) -> None:
    for name, table in tables(template, tmp_path, MIDNIGHT + HOUR).items():
        for column in table.column_names:
            if pa.types.is_timestamp(table[column].type):
                moments = micros(table, column)
                assert ((moments <= MIDNIGHT) | (moments >= MIDNIGHT + DAY)).all(), (name, column)


def micros(table: pa.Table, column: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(table[column].cast(pa.int64()).to_numpy())
