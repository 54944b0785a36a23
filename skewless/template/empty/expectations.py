"""Expectations that the data must meet before it is used, by feature view, and of the labels."""

from great_expectations.expectations.expectation import Expectation

SUITES: dict[str, list[Expectation]] = {}
