"""Expectations that the data must meet before it is used, by feature view, and of the labels."""

import great_expectations.expectations as gxe

SUITES = {
    "contract": [gxe.ExpectColumnValuesToBeInSet(column="plan", value_set=["basic", "family", "premium"])],
    "usage": [
        gxe.ExpectColumnValuesToNotBeNull(column="customer_id"),
        gxe.ExpectColumnValuesToBeBetween(column="hours_7d", min_value=0, max_value=168),
    ],
    "labels": [gxe.ExpectColumnValuesToBeInSet(column="churned", value_set=[0, 1])],
}
