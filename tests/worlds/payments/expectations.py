"""Expectations for the data of each feature view, and for the labels, in Great Expectations."""

import great_expectations.expectations as gxe

SUITES = {
    "card_days": [
        gxe.ExpectColumnValuesToNotBeNull(column="card_id"),
        gxe.ExpectColumnValuesToBeBetween(column="payments_7d", min_value=0, max_value=10_000),
    ],
    "shop_risk": [gxe.ExpectColumnValuesToBeBetween(column="refund_share", min_value=0, max_value=1)],
    "labels": [gxe.ExpectColumnValuesToBeInSet(column="fraud", value_set=[0, 1])],
}
