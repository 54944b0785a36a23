"""A series keeps what was appended, whatever a kill left at its end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.infra.storage.series import RecordSeries


def test_records_come_back_in_order(tmp_path: Path) -> None:
    series = RecordSeries(tmp_path / "drift" / "m.jsonl")
    assert series.read() == []
    for i in range(3):
        series.append({"n": i, "text": "a\nb é"})
    assert RecordSeries(tmp_path / "drift" / "m.jsonl").read() == [{"n": i, "text": "a\nb é"} for i in range(3)]


def test_every_cut_of_the_last_line_loses_that_record_at_most(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    RecordSeries(path).append({"n": 1})
    whole = path.stat().st_size
    RecordSeries(path).append({"n": 2, "text": "long"})
    data = path.read_bytes()
    for cut in range(whole, len(data)):
        path.write_bytes(data[:cut])
        RecordSeries(path).append({"n": 3})
        found = [record["n"] for record in RecordSeries(path).read()]
        # Without its newline alone, a record is whole.
        assert found == ([1, 2, 3] if cut == len(data) - 1 else [1, 3])


def test_many_append_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: RecordSeries(tmp_path / "m.jsonl").append({"n": i}), range(50)))
    assert sorted(record["n"] for record in RecordSeries(tmp_path / "m.jsonl").read()) == list(range(50))


def test_what_is_no_json_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    series = RecordSeries(tmp_path / "m.jsonl")
    series.append({"n": 1})
    with pytest.raises(ValueError, match="Out of range"):
        series.append({"n": float("nan")})
    assert series.read() == [{"n": 1}]
