"""Tables that tasks read and write: Arrow files in the storage, and a digest of their canonical values."""

from __future__ import annotations

import json
import uuid
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.arrow_numbers import binary_scalar, filled_numbers, find_nulls
from skewless.infra.platform.storage.durable import remove_at_end
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject

FOLDER = "work"  # in the storage
_BATCH_ROWS = 1 << 20


def write_table(storage: ObjectStorage, folder: str, table: pa.Table, name: str | None = None) -> StoredObject:
    """Store a table in a folder.

    Args:
        name: under which an equal table may have been stored before; None: a new name.

    Raises:
        StoreError: the storage refused the write.
    """
    with remove_at_end(storage.staging_path()) as path:
        # Not compressed, so that readers map it and share its memory.
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=_BATCH_ROWS)
        return storage.put_file(f"{FOLDER}/{folder}/{name or uuid.uuid4().hex}.arrow", path)


def read_table(storage: ObjectStorage, stored: StoredObject) -> pa.Table:
    """Return a stored table; its memory is the file's.

    Raises:
        StoreError: the object is missing, or was altered.
    """
    return pa.ipc.open_file(pa.memory_map(str(storage.local_path(stored)))).read_all()


def write_json(storage: ObjectStorage, folder: str, body: Any) -> StoredObject:  # noqa: ANN401 - any JSON value
    """Store a JSON value in a folder, under a new name.

    Raises:
        StoreError: the storage refused the write.
    """
    return storage.put(f"{FOLDER}/{folder}/{uuid.uuid4().hex}.json", json.dumps(body, sort_keys=True).encode())


def read_json(storage: ObjectStorage, stored: StoredObject) -> Any:  # noqa: ANN401 - any JSON value
    """Return a stored JSON value.

    Raises:
        StoreError: the object is missing, or was altered.
    """
    return json.loads(storage.local_path(stored).read_bytes())


def digest_table(table: pa.Table) -> str:
    """Return a digest of a table's canonical values: names, types, nulls, and the bits of the values, in order.

    The value below a null does not count, nor do chunks; -0.0 and 0.0 differ, and so do different NaNs.

    >>> one, other = pa.table({"x": [1.0, None]}), pa.table({"x": pa.chunked_array([[1.0], [None]], pa.float64())})
    >>> digest_table(one) == digest_table(other)
    True
    >>> digest_table(pa.table({"x": [0.0]})) == digest_table(pa.table({"x": [-0.0]}))
    False
    """
    total = blake2b(digest_size=16)
    for field, column in zip(table.schema, table.columns, strict=True):
        total.update(f"{field.name}:{field.type}:{len(column)};".encode())
        total.update(np.packbits(find_nulls(column)).tobytes())
        if pa.types.is_null(field.type):
            continue
        for values in _value_arrays(column):
            total.update(np.ascontiguousarray(values).view(np.uint8).data)
    return total.hexdigest()


def _value_arrays(column: pa.ChunkedArray) -> list[np.ndarray]:
    if pa.types.is_boolean(column.type):
        return [filled_numbers(column.cast(pa.uint8()), 0)]
    if column.type not in {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}:
        return [filled_numbers(column, 0)]
    texts = pc.fill_null(column.cast(pa.large_binary()), binary_scalar(b""))
    lengths = filled_numbers(pc.binary_length(texts), 0).astype(np.int64)
    return [lengths, *(_bytes(chunk) for chunk in texts.chunks if len(chunk))]


def _bytes(chunk: pa.LargeBinaryArray) -> np.ndarray:
    _, offsets, data = chunk.buffers()
    ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    return np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
