"""No body of a platform leads to anything but the fields of a request, or a RequestError."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless_platforms.bodies import parse_csv, parse_json

COLUMNS = (
    Column(name="card", dtype=DType.INT64),
    Column(name="shop", dtype=DType.STRING),
    Column(name="amount", dtype=DType.FLOAT64),
    Column(name="at", dtype=DType.TIMESTAMP),
)
NAMES = [column.name for column in COLUMNS]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "card": st.integers(-(2**63), 2**63 - 1) | st.none(),
            "shop": TEXTS | st.none(),
            "amount": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1) | st.none(),
            "at": st.integers(-(2**63), 2**63 - 1) | st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
        }
    ),
    max_size=8,
)


def written(rows: list[dict[str, Any]], names: list[str], ending: str) -> str:
    """Return rows as the csv module writes them; a number as JSON writes it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=ending)
    for row in rows:
        writer.writerow([_text(row[name]) for name in names])
    return text.getvalue()


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes(body: bytes, has_header: bool) -> None:  # noqa: FBT001 - generated
    try:
        rows = parse_csv(body, COLUMNS, 5, has_header=has_header)
    except RequestError:
        pass
    else:
        assert len(rows) <= 6
        assert all(list(row) == NAMES or (has_header and sorted(row) == sorted(NAMES)) for row in rows)
    with contextlib.suppress(RequestError):
        assert isinstance(parse_json(body)[0]["rows"], list)


@given(ROWS, st.permutations(NAMES), st.sampled_from(["\n", "\r\n"]))
def test_csv_has_the_values_of_json(rows: list[dict[str, Any]], names: list[str], ending: str) -> None:
    """The same numbers, to the last bit, as the parser of /predict reads from JSON."""
    plain = orjson.loads(json.dumps(rows))
    assert parse_csv(written(rows, NAMES, ending).encode(), COLUMNS, 10, has_header=False) == plain
    header = ",".join(names) + ending
    assert parse_csv((header + written(rows, names, ending)).encode(), COLUMNS, 10, has_header=True) == plain


def test_rows_beyond_the_limit_are_not_read() -> None:
    assert len(parse_csv(b"1,a,1,1\n" * 100, COLUMNS, 3, has_header=False)) == 4
