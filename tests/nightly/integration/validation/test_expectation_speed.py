"""Each expectation computes its configuration once for an evaluation, and its result is that of Great Expectations."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import great_expectations.expectations as gxe
import pytest
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import get_expectation_impl

from skewless.validation import duckdb_engine
from skewless.validation.duckdb_engine import ExpectationEvaluator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

# The last one has what the others have.
DETAILS = (*(pytest.param(name, marks=pytest.mark.soak) for name in ("BOOLEAN_ONLY", "BASIC")), "SUMMARY")


class ExpectColumnValuesToBeSmall(gxe.ExpectColumnValuesToBeBetween):
    """A project's own expectation."""

    max_value: Any = 9


def suite() -> list[Expectation]:
    """Return expectations of many kinds; about half of them fail, and two cannot be evaluated."""
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="x", mostly=0.9, notes="a note", meta={"owner": "data"}),
        gxe.ExpectColumnValuesToNotBeNull(column="x", severity=FailureSeverity.WARNING, description="no nulls"),
        gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0, max_value=10),
        ExpectColumnValuesToBeSmall(column="x"),
        gxe.ExpectColumnValuesToBeInSet(column="name", value_set=["a", "b"]),
        gxe.ExpectColumnValuesToBeUnique(column="n"),
        gxe.ExpectColumnValuesToMatchRegex(column="name", regex="^a"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="n", column_B="x", or_equal=True),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["n", "name"]),
        gxe.ExpectColumnMeanToBeBetween(column="x", min_value=3, max_value=4),
        gxe.ExpectColumnMedianToBeBetween(column="n", min_value=0, max_value=99),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectTableColumnsToMatchSet(column_set=["n", "x"]),
        gxe.UnexpectedRowsExpectation(unexpected_rows_query="SELECT * FROM {batch} WHERE n > 20"),
        gxe.ExpectColumnMaxToBeBetween(column="gone", max_value=1),
        gxe.ExpectColumnMaxToBeBetween(column="name", max_value=1),
    ]


@pytest.fixture
def evaluator() -> Iterator[ExpectationEvaluator]:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE batch AS SELECT range AS n, nullif(range, 7)::DOUBLE AS x,"
            " ['a', 'b', 'c'][1 + range % 3] AS name FROM range(30)"
        )
        evaluator = ExpectationEvaluator(connection, "batch")
        yield evaluator
        evaluator.close()


def results(evaluator: ExpectationEvaluator, detail: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for result in evaluator.evaluate(suite(), detail=detail, sample=5):
        text = json.dumps(result.to_json_dict())
        # A traceback names lines of code.
        found.append(json.loads(text, object_hook=lambda values: values | {"exception_traceback": None}))
    return found


@pytest.mark.parametrize("detail", DETAILS)
def test_results_are_those_of_great_expectations(
    evaluator: ExpectationEvaluator, monkeypatch: pytest.MonkeyPatch, detail: str
) -> None:
    ours, queries = results(evaluator, detail), evaluator.queries(suite()[:9], "n")
    assert {result["success"] for result in ours} == {True, False}
    monkeypatch.setattr(duckdb_engine, "_quicken", lambda configuration: configuration)
    assert results(evaluator, detail) == ours
    assert evaluator.queries(suite()[:9], "n") == queries


def test_a_configuration_is_computed_once_for_each_step(
    evaluator: ExpectationEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()
    computed = vars(Expectation)["configuration"].fget

    def count(expectation: Expectation) -> ExpectationConfiguration:
        counts[expectation.expectation_type] += 1
        configuration: ExpectationConfiguration = computed(expectation)
        return configuration

    monkeypatch.setattr(Expectation, "configuration", property(count))
    checked = [gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0), gxe.ExpectColumnValuesToBeUnique(column="n")]
    evaluator.evaluate(checked, detail="SUMMARY")
    # For us, for the metrics and for the result.
    assert counts == dict.fromkeys(counts, 3)
    assert len(counts) == 2


def test_the_classes_of_great_expectations_stay_as_they_are(evaluator: ExpectationEvaluator) -> None:
    evaluator.evaluate(suite(), detail="BOOLEAN_ONLY")
    for expectation in suite():
        assert get_expectation_impl(expectation.expectation_type) is type(expectation)
