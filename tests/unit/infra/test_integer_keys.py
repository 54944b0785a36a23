"""Keys in the wire's form are the keys that the codec makes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec
from skewless.infra.reads.online.resp import IntegerKeys, KeySeparators, command, mget
from tests.worlds.plans import make_view

CODECS = [KeyCodec("p", make_view(name, keys={"Größe": DType.INT64})) for name in ("a", "bc")]
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INTEGERS, max_size=5), st.integers(0, 2))
def test_keys_are_those_of_the_codec(values: list[int], views: int) -> None:
    codecs = CODECS[:views]
    keys = IntegerKeys([KeySeparators(codec.prefix + b"|") for codec in codecs], values)
    expected = [key for value in values for codec in codecs if (key := codec.encode([value])) is not None]
    assert list(keys) == expected
    assert [keys[i] for i in range(len(keys))] == keys[:] == expected
    assert len(keys) == len(expected)
    assert mget(keys, [b"more"]) == command(b"MGET", *expected, b"more")
