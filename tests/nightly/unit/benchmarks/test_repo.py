"""The made-up tables are the same for everybody, and look like tables that teams have."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.digest import digest_columns
from benchmarks.repo import ViewTable


def test_a_table_is_the_same_each_time_and_another_for_other_arguments(tmp_path: Path) -> None:
    table = ViewTable(name="wide", n_entities=300, n_features=12, per_entity=3, text=True)
    first = pa.concat_tables(table.chunks())
    again = pq.read_table(table.write(tmp_path))
    other = pa.concat_tables(ViewTable(name="wide", n_entities=301, n_features=12, per_entity=3, text=True).chunks())
    assert first.equals(again)
    assert not first.equals(other.slice(0, 900))


def test_a_table_holds_floats_integers_text_and_nulls_and_one_row_per_entity_and_hour() -> None:
    rows = pa.concat_tables(ViewTable(name="t", n_entities=300, n_features=10, per_entity=3, text=True).chunks())
    kinds = {str(rows.schema.field(f"t_{i:02}").type) for i in range(10)}
    assert kinds == {"double", "int64", "string"}
    assert all(0 < rows[f"t_{i:02}"].null_count < 400 for i in (0, 3, 6, 9))
    assert rows["t_01"].null_count == 0
    assert rows.num_rows == 900
    assert set(rows["entity_id"].value_counts().field("counts").to_pylist()) == {3}


def test_a_digest_tells_values_and_order_apart_but_not_libraries() -> None:
    rows = {"a": pa.array([1.5, None, 2.0]), "b": pa.array(["x", "", None])}
    frame = pa.table(rows).to_pandas()
    assert digest_columns(rows) == digest_columns({name: frame[name].to_numpy() for name in frame})
    assert digest_columns(rows) != digest_columns({**rows, "a": pa.array([None, 1.5, 2.0])})
    assert digest_columns(rows) != digest_columns({**rows, "b": pa.array(["", "x", None])})
    assert digest_columns(rows) != digest_columns({**rows, "b": pa.array(["x", None, ""])})
    assert digest_columns({"a": pa.chunked_array([[1, 2], [3]])}) == digest_columns({"a": [1.0, 2.0, 3.0]})
