"""The order of rows in merged files: by the bucket of their entity, so that a task of some buckets reads little else.

A file consists of blocks, each with consecutive positions. Within a block, rows are sorted by bucket, then by position.
A row group has few buckets, and readers skip it by its statistics. A reader that needs rows by position restores their
order in one block at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.buckets import find_buckets
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.platform.storage.objects import corrupt_error, missing_error

BUCKET = "__bucket"
_METADATA = b"skewless.buckets"


@dataclass(frozen=True, kw_only=True)
class BucketOrder:
    """An order of rows by the bucket of their keys.

    Args:
        keys: columns, in the order of the view's keys.
        buckets: number of buckets.
        block_rows: number of rows in each block but the last of a file.
        group_rows: number of rows in each row group but the last of a block.
    """

    keys: tuple[Column, ...]
    buckets: int
    block_rows: int = field(default=1 << 19, compare=False)
    # A task of 1/32 of the buckets reads one or two row groups of a block; all of them have little metadata.
    group_rows: int = field(default=1 << 14, compare=False)

    @classmethod
    def read(cls, schema: pa.Schema) -> Self | None:
        """Return the order of a file with a schema; None: its rows are in the order of their positions."""
        text = (schema.metadata or {}).get(_METADATA)
        if text is None:
            return None
        body = json.loads(text)
        keys = tuple(Column(name=name, dtype=DType(kind)) for name, kind in body["keys"])
        return cls(keys=keys, buckets=body["buckets"], block_rows=body["block_rows"])

    def can_sort(self, schema: pa.Schema) -> bool:
        """Return whether rows with a schema have the keys, in the types of the view."""
        names = set(schema.names)
        return all(key.name in names and schema.field(key.name).type == arrow_type(key.dtype) for key in self.keys)

    def extend(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of a file in this order whose rows have a schema."""
        keys = [(key.name, str(key.dtype)) for key in self.keys]
        body = {"keys": keys, "buckets": self.buckets, "block_rows": self.block_rows}
        return schema.append(pa.field(BUCKET, pa.int64())).with_metadata({_METADATA: json.dumps(body).encode()})

    def sort(self, block: pa.Table) -> pa.Table:
        """Return the rows of a block, which are in the order of their positions, in this order."""
        bucket = find_buckets([block[key.name] for key in self.keys], self.buckets)
        order = np.argsort(bucket, kind="stable")
        rows = block.take(int64_array(order)).append_column(BUCKET, int64_array(bucket[order]))
        return rows.combine_chunks()


@dataclass(frozen=True, kw_only=True)
class BucketRange:
    """The entities of the buckets ``first <= bucket < end`` of ``count``."""

    first: int
    end: int
    count: int

    def select(self, rows: pa.Table, keys: Sequence[Column]) -> pa.Table:
        """Return the rows of these entities."""
        bucket = find_buckets([rows[key.name] for key in keys], self.count)
        return rows.filter(pa.array((bucket >= self.first) & (bucket < self.end)))

    def is_order_of(self, file: str, keys: Sequence[Column]) -> bool:
        """Return whether a file of a log is sorted by these buckets of its keys.

        Raises:
            StoreError: the file is missing or corrupt.
        """
        return _read_order(file) == BucketOrder(keys=tuple(keys), buckets=self.count)

    def select_groups(self, file: pq.ParquetFile) -> list[int]:
        """Return the row groups that may have their rows, of a file that is sorted by these buckets."""
        column = file.schema_arrow.get_field_index(BUCKET)
        ranges = (file.metadata.row_group(group).column(column).statistics for group in range(file.num_row_groups))
        return [i for i, each in enumerate(ranges) if each.min < self.end and each.max >= self.first]


def measure_sorted(files: Sequence[str], keys: Sequence[Column], buckets: int) -> float:
    """Return the share of the bytes of a log that are in files sorted by the buckets of these keys; 0 without files.

    Raises:
        StoreError: a file is missing or corrupt.
    """
    own, sizes = BucketRange(first=0, end=buckets, count=buckets), [Path(file).stat().st_size for file in files]
    is_sorted = [own.is_order_of(file, keys) for file in files]
    return sum(size for size, flag in zip(sizes, is_sorted, strict=True) if flag) / max(1, sum(sizes))


@dataclass(frozen=True, kw_only=True)
class FileScan:
    """Files of a log, and the SQL condition on their rows that selects some buckets; empty: all rows are read."""

    files: Sequence[str]
    condition: str = ""


def plan_scans(files: Sequence[str], keys: Sequence[Column], buckets: BucketRange | None) -> list[FileScan]:
    """Return the scans of a log's files that have all rows of some buckets, and as few others as possible.

    Args:
        keys: of the view that reads the log.
        buckets: None: all rows.

    Raises:
        StoreError: a file is missing or corrupt.
    """
    if buckets is None:
        return [FileScan(files=files)] if files else []
    is_sorted = [buckets.is_order_of(file, keys) for file in files]
    condition = f"{BUCKET} >= {buckets.first} AND {BUCKET} < {buckets.end}"
    scans = (
        FileScan(files=[file for file, flag in zip(files, is_sorted, strict=True) if flag], condition=condition),
        FileScan(files=[file for file, flag in zip(files, is_sorted, strict=True) if not flag]),
    )
    return [scan for scan in scans if scan.files]


def scans_sql(scans: Sequence[FileScan]) -> str:
    """Return SQL, for use after FROM, of the rows of some scans without their buckets; bind the files of each.

    >>> scans_sql([FileScan(files=["a"], condition="__bucket < 7"), FileScan(files=["b"])])
    '(SELECT * EXCLUDE (__bucket) FROM read_parquet(?) WHERE __bucket < 7 UNION ALL BY NAME \
SELECT * FROM read_parquet(?))'
    """
    queries = [
        f"SELECT * EXCLUDE ({BUCKET}) FROM read_parquet(?) WHERE {scan.condition}"
        if scan.condition
        else "SELECT * FROM read_parquet(?)"
        for scan in scans
    ]
    return f"({' UNION ALL BY NAME '.join(queries)})"


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of the rows of a file, without what an order has added."""
    return pa.schema([field for field in schema if field.name != BUCKET])


@lru_cache(maxsize=10_000)
def _read_order(file: str) -> BucketOrder | None:
    try:
        return BucketOrder.read(pq.read_schema(file))
    except FileNotFoundError as error:
        raise missing_error(Path(file)) from error
    except (OSError, pa.ArrowException) as error:
        raise corrupt_error(Path(file), error) from error
