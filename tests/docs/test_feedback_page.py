"""docs/feedback.md: the example is taken, and every field, column and count that there is is named."""

from __future__ import annotations

import pyarrow as pa

from skewless.commands.watch import COLUMNS
from skewless.contract.dtypes import DType
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.lifecycle import Triggers
from skewless.infra.records.outcomes.log import SCHEMA, OutcomeCounts
from skewless.serving.http.feedback_routes import FeedbackRequest, FeedbackRow, read_rows
from tests.docs.pages import blocks, names, page, section, table
from tests.worlds.plans import make_plan, make_view

PAGE = page("feedback.md")
NOW = 1_768_478_400_000_000


def test_the_request_of_the_page_is_taken() -> None:
    (text,) = blocks(section(PAGE, "Send an outcome"), "json")
    view = make_view(keys={"card_id": DType.INT64, "shop_id": DType.STRING})
    found = parse_feedback(read_rows(text.encode()), lambda _: make_plan(["v.x"], views=[view]), NOW, 10)
    assert [(one.by, one.kind) for one in found] == [("id", "label"), ("entity", "label")]
    assert len(FeedbackRequest.model_validate_json(text).feedback) == 2


def test_every_field_is_documented() -> None:
    rows = table(section(PAGE, "Send an outcome"), "field", "meaning")
    documented = [name for row in rows for name in names(row["field"])]
    assert documented == list(FeedbackRow.model_fields) == list(Outcome.__dataclass_fields__)


def test_every_column_of_quality_and_of_the_log_is_documented() -> None:
    rows = table(section(PAGE, "Live quality"), "column", "meaning")
    told = [name for row in rows for name in row["column"].split(", ")]
    assert sorted(told) == sorted(name for name in COLUMNS if name != "version")
    assert isinstance(SCHEMA, pa.Schema)
    assert {name for name in SCHEMA.names if f"`{name}`" not in section(PAGE, "The log")} == set()


def test_every_count_is_documented() -> None:
    text = section(PAGE, "Late, corrected, duplicate, contradicting")
    counts = set(OutcomeCounts.__dataclass_fields__) - {"rows", "subjects"}
    assert {name for name in counts if name not in text} == set()


def test_every_trigger_is_documented() -> None:
    rows = table(section(PAGE, "Triggers"), "trigger", "when")
    assert [name for row in rows for name in names(row["trigger"])] == list(Triggers.__dataclass_fields__)
