"""The expectations hold on the loaded data, and name each view once."""

from __future__ import annotations

import great_expectations as gx
import pytest
from definitions import carrier_days, plane_days, plane_facts, route_days, weather
from expectations import SUITES

from .conftest import Flights

TABLE_OF = {"plane_facts": "planes", "labels": "flights"}


def test_every_view_and_the_labels_have_a_suite() -> None:
    views = {view.name for view in (carrier_days, plane_days, plane_facts, route_days, weather)}
    assert set(SUITES) == {*views, "labels"}


@pytest.mark.parametrize("name", SUITES)
def test_all_expectations_hold(flights: Flights, name: str) -> None:
    context = gx.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    table = flights.tables[TABLE_OF.get(name, name)]
    result = batch.get_batch({"dataframe": table}).validate(gx.ExpectationSuite(name=name, expectations=SUITES[name]))
    assert result.success, [one.expectation_config for one in result.results if not one.success]
    assert len(result.results) == len(SUITES[name])
