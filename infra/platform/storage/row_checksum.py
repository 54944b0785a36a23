"""A checksum of the numbers in a row of the database: it finds rot and edits by hand, not malice.

It is a sum of one term for each column, so that the database changes a term of it together with its column, and a row
that was altered before does not look right afterwards. The database computes it too: reads compare it where the row is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Primes: no multiple of one weight, below the modulus, equals one of another, so two changes cannot cancel out. The sum
# fits into 64 bits. A released number never changes.
_MODULUS = 536_870_909
_WEIGHTS = (1073741789, 1073741783, 1073741741, 1073741723, 1073741719, 1073741717, 1073741689, 1073741671)
_NULL = -1


@dataclass(frozen=True)
class RowChecksum:
    """The column ``checksum`` of a table.

    Args:
        columns: the columns with integers that it is about, at most eight; any may be null.

    >>> RowChecksum("first", "last").compute(3, None)
    2147483584
    """

    columns: tuple[str, ...]

    def __init__(self, *columns: str) -> None:
        object.__setattr__(self, "columns", columns)

    @property
    def is_intact(self) -> str:
        """The SQL of 1 for a row with the checksum of its columns, and of 0 for another."""
        return f"CASE WHEN checksum = {self.sql} THEN 1 ELSE 0 END"

    @property
    def sql(self) -> str:
        """The SQL of the checksum of a row."""
        return " + ".join(_term(name, weight) for name, weight in zip(self.columns, _WEIGHTS, strict=False))

    def compute(self, *values: int | None) -> int:
        """Return the checksum of a new row."""
        numbers = (_NULL if value is None else value for value in values)
        # The remainder of a negative number is negative in SQL.
        remainders = (number % _MODULUS if number >= 0 else -(-number % _MODULUS) for number in numbers)
        return sum(rest * weight for rest, weight in zip(remainders, _WEIGHTS, strict=False))

    def changed(self, new: Mapping[str, str]) -> str:
        """Return the SQL of the checksum after an update of columns, given the SQL of their new values."""
        weights = dict(zip(self.columns, _WEIGHTS, strict=False))
        return "checksum" + "".join(
            f" + {_term(value, weights[name])} - {_term(name, weights[name])}" for name, value in new.items()
        )


def _term(value: str, weight: int) -> str:
    return f"(coalesce(CAST({value} AS BIGINT), {_NULL}) % {_MODULUS} * {weight})"
