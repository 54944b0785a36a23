"""Values that Feast's messages can represent keep their bits."""

from __future__ import annotations

import math
import struct

from feast.types import Array, Float64

from skewless_feast.exact_values import fit_values

NEGATIVE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]


def test_a_nan_in_a_list_keeps_its_bits_where_a_null_becomes_one() -> None:
    (fitted,) = fit_values("view 'v' feature 'x'", Array(Float64), [[NEGATIVE_NAN, None, -0.0]])
    assert struct.pack("<d", fitted[0]) == struct.pack("<d", NEGATIVE_NAN)
    assert math.isnan(fitted[1])
    assert struct.pack("<d", fitted[2]) == struct.pack("<d", -0.0)
