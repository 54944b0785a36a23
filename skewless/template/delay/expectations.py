"""Expectations that the data must meet before it is used, by feature view, and of the labels."""

import great_expectations.expectations as gxe

SUITES = {
    "stations": [
        gxe.ExpectColumnValuesToNotBeNull(column="station"),
        gxe.ExpectColumnValuesToBeBetween(column="platforms", min_value=1, max_value=40),
    ],
    "labels": [gxe.ExpectColumnValuesToBeBetween(column="delay", min_value=0, max_value=600)],
}
