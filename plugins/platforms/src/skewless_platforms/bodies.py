"""Bodies of platforms: ``instances`` in JSON, and CSV, to the fields of ``/predict``; and its results back to them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from typing import Any

import orjson

from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.serving.http.hot_routes import JSON, Header
from skewless.serving.http.predict_route import Reply, Result, check_body, load_json
from skewless.serving.http.reply import predictions_json

CSV = b"text/csv"
_FIELDS = ("instances", "parameters")
_BODY = "request body"
# SageMaker passes only this header on to its caller.
_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_CSV_TYPE: Header = (b"content-type", b"text/csv; charset=utf-8")


def parse_json(body: bytes) -> tuple[dict[str, Any], bool]:
    """Return the fields of a request as those of ``/predict``, and whether it has ``instances``.

    >>> parse_json(b'{"instances": [{"id": 7}], "parameters": {"model": "fraud"}}')
    ({'model': 'fraud', 'rows': [{'id': 7}]}, True)

    Raises:
        RequestError: as ``/predict``; or another field stands beside ``instances`` and ``parameters``.
    """
    data = load_json(body)
    if not isinstance(data, dict) or "instances" not in data:
        return check_body(data), False
    if unknown := sorted(data.keys() - set(_FIELDS)):
        fix = "put the fields of /predict into 'parameters'"
        raise RequestError(_BODY, "has an unknown field", value=unknown[0], fix=fix)
    instances, parameters = data["instances"], data.get("parameters")
    if not isinstance(instances, list):
        raise RequestError("request field 'instances'", "is not a list", fix='send {"instances": [{...}]}')
    if not isinstance(parameters, dict | None) or "rows" in (parameters or {}):
        fix = "send an object with fields of /predict, without rows"
        raise RequestError("request field 'parameters'", "is not an object of options", fix=fix)
    return check_body({**(parameters or {}), "rows": instances}), True


def parse_csv(body: bytes, columns: Sequence[Column], max_rows: int, *, has_header: bool) -> list[dict[str, Any]]:
    """Return the rows of a CSV body, as JSON would have them.

    A number has JSON's grammar, and is parsed by the parser of JSON, so that it has the same bits. An empty field is
    null. The parser of rows checks types and reports errors with row and field.

    Args:
        columns: entity keys, then request fields, in the model's order.
        max_rows: of a request; at most one row more is read, since each costs more memory than its text.
        has_header: whether the first line has the names of the columns, in any order.

    Raises:
        RequestError: the body is not CSV in UTF-8, a line has another number of fields, or the header other names.
    """
    try:
        reader = csv.reader(io.StringIO(body.decode(), newline=""), strict=True)
        lines = list(itertools.islice(reader, max_rows + 1 + has_header))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(_BODY, f"is not CSV: {error}", fix="send UTF-8 text, one row in each line") from error
    names = [column.name for column in columns]
    ordered = list(columns)
    if has_header:
        header = lines.pop(0) if lines else []
        if sorted(header) != sorted(names):
            raise RequestError("CSV header", "has other columns", value=header, fix=f"send {', '.join(names)}")
        by_name = {column.name: column for column in columns}
        ordered = [by_name[name] for name in header]
    rows = []
    for number, fields in enumerate(lines):
        if len(fields) != len(ordered):
            fix = f"send {len(ordered)} fields: {', '.join(column.name for column in ordered)}"
            raise RequestError(f"row {number}", f"has {len(fields)} fields", fix=fix)
        rows.append({column.name: _read_field(column, text) for column, text in zip(ordered, fields, strict=True)})
    return rows


def _read_field(column: Column, text: str) -> object:
    if not text:
        return None
    if column.dtype.is_text:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text  # a time in ISO 8601, or an error that the parser of rows reports


def encode_predictions(result: Result, *, features: bool) -> Reply:
    """Return ``{"predictions": [...]}``: the platform drops other fields, so each prediction has them."""
    body = predictions_json(result, features=features)
    shared = {"version": body["version"], "t_us": body["t_us"], "degraded": body["degraded"]}
    items = [{**shared, **item} for item in body["predictions"]]
    return orjson.dumps({"predictions": items}), JSON


def encode_csv(result: Result, *, features: bool) -> Reply:
    """Return a line of scores for each row; the header of custom attributes has version, time and ``degraded``."""
    del features  # CSV has only scores
    body = predictions_json(result, features=False)
    lines = [",".join(map(str, item.get("scores") or [item["score"]])) for item in body["predictions"]]
    attributes = {name: body[name] for name in ("model", "version", "t_us")}
    attributes["degraded"] = str(body["degraded"]).lower()
    text = ";".join(f"{name}={value}" for name, value in attributes.items() if value is not None)
    return "".join(f"{line}\n" for line in lines).encode(), (_CSV_TYPE, (_ATTRIBUTES, text.encode()))
