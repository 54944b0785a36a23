"""Map the plan's types to Arrow types, and convert times."""

from __future__ import annotations

import pyarrow as pa

from skewless.contract.dtypes import DType

_UNITS = ("s", "ms", "us", "ns")


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


def cast_times(times: pa.Array | pa.ChunkedArray, target: pa.TimestampType) -> pa.Array | pa.ChunkedArray:
    """Return times in another unit and zone, floored; naive times are UTC. Arrow's cast truncates those before 1970.

    Raises:
        ArrowInvalid: a time is out of the range of the unit.

    >>> times = pa.array([-1, 1_500], pa.int64()).cast(pa.timestamp("ns"))
    >>> cast_times(times, pa.timestamp("us")).cast(pa.int64()).to_pylist()
    [-1, 1]
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - a server does without

    finer = _UNITS.index(times.type.unit) - _UNITS.index(target.unit) if pa.types.is_timestamp(times.type) else 0
    if finer <= 0:
        return times.cast(target)
    numbers, divisor = times.cast(pa.int64()), 1_000**finer
    truncated = pc.divide(numbers, divisor)
    is_below = pc.less(numbers, pc.multiply(truncated, divisor))
    return pc.subtract(truncated, is_below.cast(pa.int64())).cast(target)
