"""Map the plan's types to Arrow types."""

from __future__ import annotations

import pyarrow as pa

from skewless.contract.dtypes import DType


def arrow_type(dtype: DType) -> pa.DataType:
    """Return the Arrow type that holds a column; a timestamp is its int64 microseconds.

    >>> arrow_type(DType.FLOAT64)
    DataType(double)
    """
    return {
        DType.INT32: pa.int32(),
        DType.INT64: pa.int64(),
        DType.FLOAT32: pa.float32(),
        DType.FLOAT64: pa.float64(),
        DType.BOOL: pa.bool_(),
        DType.STRING: pa.string(),
        DType.BYTES: pa.binary(),
        DType.TIMESTAMP: pa.int64(),
    }[dtype]
