"""SEMANTICS 1.4: an erased row keeps its position and its times; all other rows keep all their bits."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.log.bucket_order import BUCKET, BucketOrder
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import CREATED, ERASED, EVENT, INGEST, RAW, REJECT, RUN, SEQ, TOMBSTONE
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.data.erasure.entity import Entity, find_accepted_rows

PARTITION = "batch/v-0123456789abcdef"
SCHEMA = pa.schema(
    [
        ("card", pa.int64()),
        ("shop", pa.string()),
        ("value", pa.float64()),
        *((name, pa.int64()) for name in (EVENT, CREATED, INGEST, RUN)),
        (TOMBSTONE, pa.bool_()),
        (REJECT, pa.string()),
        (RAW, pa.string()),
    ]
)
COLUMNS = [Column(name="card", dtype=DType.INT64), Column(name="shop", dtype=DType.STRING)]
ORDER = BucketOrder(keys=(COLUMNS[0],), buckets=16, block_rows=4, group_rows=2)
CARDS, SHOPS = (-1, 7, 70), ("a", "7", 'q"|{')
KEPT = (SEQ, EVENT, INGEST, RUN, TOMBSTONE)


@st.composite
def logged_rows(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a row; a rejected one may lack keys that its message has."""
    card, shop = draw(st.sampled_from(CARDS)), draw(st.sampled_from(SHOPS))
    time = draw(st.integers(0, 5))
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row |= {"card": card, "shop": shop, "value": draw(st.none() | st.floats()), EVENT: time, CREATED: time, INGEST: 9}
    row |= {RUN: 1, TOMBSTONE: draw(st.booleans())}
    if draw(st.integers(0, 3)) == 0:
        message = json.dumps({"card": draw(st.sampled_from([card, str(card)])), "shop": shop})
        row |= {REJECT: "no", RAW: message, "card": draw(st.sampled_from([card, None]))}
    return row


def belongs(row: dict[str, Any], keys: dict[str, str]) -> bool:
    """Say whether a row has the keys, in its columns or in its message."""
    texts = [{name: row[name] for name in ("card", "shop")}, json.loads(row[RAW] or "{}")]
    return any(all(str(text.get(name)) == value for name, value in keys.items()) for text in texts)


@given(
    st.lists(st.lists(logged_rows(), min_size=1, max_size=6), min_size=1, max_size=5),
    st.sampled_from([{"card": "7"}, {"shop": "7"}, {"shop": 'q"|{'}, {"card": "-1", "shop": "a"}]),
    st.sampled_from(["", "merged", "sorted"]),
)
def test_1_4_only_the_rows_of_the_entity_change(
    batches: list[list[dict[str, Any]]],
    keys: dict[str, str],
    state_of_files: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = ProjectState(Path(folder))
        log = PartitionLog(state, PARTITION)
        for batch in batches:
            log.append(pa.Table.from_pylist(batch, SCHEMA))
        if state_of_files:
            compact(log, keep=0, group=lambda _: "", order=ORDER if state_of_files == "sorted" else None)
        entity = Entity.parse(keys, COLUMNS, [])
        before, segments = pa.concat_tables(log.read()).to_pylist(), log.segments()
        own = [row for row in before if belongs(row, keys)]
        found = find_accepted_rows(log, entity)
        assert found.rows == len(own)
        replaced = found.erase()
        changed = {
            segment.first for segment in segments if any(segment.first <= row[SEQ] <= segment.last for row in own)
        }
        assert {stored.name for stored in replaced} == {each.stored.name for each in segments if each.first in changed}
        expected = [
            {name: row[name] if name in KEPT else ERASED if name == REJECT else None for name in row}
            if belongs(row, keys)
            else row
            for row in before
        ]
        # Texts, because NaN is not equal to itself.
        assert list(map(str, pa.concat_tables(log.read()).to_pylist())) == list(map(str, expected))
        assert [item._replace(stored=segments[0].stored) for item in log.segments()] == [
            item._replace(stored=segments[0].stored) for item in segments
        ]
        assert found.erase() == []
        assert find_accepted_rows(log, entity).rows == 0
        for file in log.files() if state_of_files == "sorted" and len(batches) > 1 else []:
            assert BucketOrder.read(pq.read_schema(file)) == ORDER
            buckets = pq.read_table(file)[BUCKET].to_pylist()
            blocks = [buckets[at : at + ORDER.block_rows] for at in range(0, len(buckets), ORDER.block_rows)]
            assert all(block == sorted(block) for block in blocks)
        names = {Path(file).name for file in log.files()}
        assert all(pq.read_schema(file).names[:3] == ["card", "shop", "value"] for file in log.files())
        assert names.isdisjoint(Path(stored.name).name for stored in replaced)
        state.database.close()
