"""docs/serving.md: the examples have the shape of requests and replies, and every field and status is there."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.settings import Settings
from skewless.serving.http.predict_route import PredictedRow, PredictReply, PredictRequest, parse_body
from skewless.serving.http.reply import http_status
from skewless.serving.http.wire_limits import BodyTooLongError
from tests.docs.error_kinds import tree_of
from tests.docs.pages import blocks, names, page, section, table

PAGE = page("serving.md")
WITHOUT_AN_ERROR = {200, 202}
OF_THE_WIRE = {405, 431, 501, 505}
ABSENT = RequestError("field 'model'", "is not a served model", fix="")


def test_the_request_of_the_page_is_one() -> None:
    (text,) = blocks(section(PAGE, "Request"), "json")
    assert parse_body(text.encode()) == PredictRequest.model_validate_json(text).model_dump(exclude_unset=True)


def test_the_reply_of_the_page_is_one() -> None:
    (text,) = blocks(section(PAGE, "Reply"), "json")
    assert PredictReply.model_validate_json(text).model_dump(exclude_unset=True) == json.loads(text)


def test_every_field_of_a_reply_is_documented() -> None:
    rows = table(section(PAGE, "Reply"), "field", "meaning")
    told = [name for row in rows for name in names(row["field"])]
    assert told == [*PredictReply.model_fields, *PredictedRow.model_fields]


def test_every_status_of_http_is_documented() -> None:
    rows = table(section(PAGE, "Errors"), "HTTP status", "when")
    told = [int(status) for row in rows for status in re.findall(r"\d+", row["HTTP status"])]
    errors = [
        ABSENT,
        BodyTooLongError("x", "y", fix="z"),
        *(kind("x", "y", fix="z") for kind in tree_of(SkewlessError)),
    ]
    assert sorted(told) == sorted({http_status(error) for error in errors} | WITHOUT_AN_ERROR | OF_THE_WIRE)
    assert all(status in STATUS_LINE for status in told)


def test_every_limit_of_the_page_is_a_setting() -> None:
    rows = table(section(PAGE, "Limits"), "what", "at most", "beyond it")
    assert {name for row in rows for name in names(row["at most"])} <= Settings.model_fields.keys()


def test_json_may_be_as_deep_as_the_page_says() -> None:
    rows = table(section(PAGE, "Limits"), "what", "at most", "beyond it")
    (told,) = [row["at most"] for row in rows if row["what"] == "JSON in JSON"]
    most = int(told.split()[0].replace(",", ""))
    assert orjson.loads("[" * most + "]" * most)
    with pytest.raises(RequestError, match="depth"):
        parse_body(b"[" * (most + 1) + b"]" * (most + 1))
