"""Compare keys of entity rows and of sources in one common type."""

from __future__ import annotations

from collections.abc import Mapping

from skewless.contract.errors import RequestError

INTEGER = "BIGINT"
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE"}
_NULL_TYPES = {'"NULL"', "NULL"}


def common_type(owner: str, name: str, entity_types: Mapping[str, str], source_type: str) -> str:
    """Return DuckDB's type for comparing a key of entity rows with a key of a source.

    Args:
        owner: the view, for errors.
        name: column of the entity rows.
        entity_types: DuckDB's type of each column of the entity rows.

    Raises:
        RequestError: the entity rows do not have the key, or keys of these types can never be equal.

    >>> common_type("view 'v'", "id", {"id": "DOUBLE"}, "INTEGER")
    'BIGINT'
    >>> common_type("view 'v'", "id", {"id": "VARCHAR"}, "VARCHAR")
    'VARCHAR'
    """
    if name not in entity_types:
        raise RequestError(
            "entity rows",
            f"have no key of {owner}",
            value=name,
            fix="add the column, or remove the view from the request",
        )
    entity, source = _kind(entity_types[name]), _kind(source_type)
    if entity in _NULL_TYPES:
        return source
    if source in _NULL_TYPES or entity == source:
        return entity
    if {entity, source} <= {INTEGER, "HUGEINT", "DOUBLE"}:
        # pandas converts a column of integers with a null to floats.
        return "HUGEINT" if "HUGEINT" in {entity, source} else INTEGER
    raise RequestError(
        f"{owner} key {name!r}",
        f"has type {entity_types[name]} in the entity rows and {source_type} in the source",
        fix="give the entity rows the type of the source",
    )


def cast_key(expression: str, from_type: str, target: str) -> str:
    """Return SQL of a key in the type of the comparison; null if the key does not fit the type.

    >>> cast_key("k", "DOUBLE", "BIGINT")
    'CASE WHEN k = trunc(k) THEN TRY_CAST(k AS BIGINT) END'
    """
    if from_type in _FLOATS and target in {INTEGER, "HUGEINT"}:
        return f"CASE WHEN {expression} = trunc({expression}) THEN TRY_CAST({expression} AS {target}) END"
    return expression if from_type == target else f"TRY_CAST({expression} AS {target})"


def _kind(sql_type: str) -> str:
    if sql_type in {"HUGEINT", "UBIGINT", "UHUGEINT"}:
        return "HUGEINT"
    if sql_type in _INTEGERS:
        return INTEGER
    if sql_type in _FLOATS:
        return "DOUBLE"
    if sql_type in _NULL_TYPES:
        return "NULL"
    if sql_type.startswith(("ENUM", "VARCHAR", "UUID", "JSON")):
        return "VARCHAR"
    return "TIMESTAMPTZ" if sql_type.startswith("TIMESTAMP") else sql_type
