"""Expectations that the data must meet before it is used, by feature view, and of the labels."""

import great_expectations.expectations as gxe

SUITES = {
    "card_days": [
        gxe.ExpectColumnValuesToNotBeNull(column="card_id"),
        gxe.ExpectColumnValuesToBeBetween(column="payments_7d", min_value=0, max_value=10_000),
        gxe.ExpectColumnValuesToBeInSet(column="country", value_set=["DE", "FR", "PL"]),
    ],
    "shop_risk": [gxe.ExpectColumnValuesToBeBetween(column="refund_share", min_value=0, max_value=1)],
    "labels": [
        gxe.ExpectColumnValuesToBeInSet(column="fraud", value_set=[0, 1]),
        gxe.ExpectColumnValuesToBeBetween(column="amount", min_value=0, max_value=100_000),
        gxe.ExpectColumnMeanToBeBetween(column="fraud", min_value=0.005, max_value=0.3),
    ],
}
