"""docs/oip.md lists exactly the outputs, parameters, datatypes and extensions that exist."""

from __future__ import annotations

import json

import numpy as np

from skewless.contract.actions import Explore
from skewless.contract.bounds import Bound, Bounds
from skewless.contract.bounds_check import BoundsCheck
from skewless.contract.dtypes import DType
from skewless.contract.policy import Policy
from skewless.serving.app import create_app
from skewless_oip.conversion import build_outputs, encode_reply
from skewless_oip.datatypes import DATATYPES
from skewless_oip.routes import OipRoutes
from skewless_oip.signature import Signature
from tests.docs.pages import names, page, section, table
from tests.docs.test_reference import described_server, only, routes_of
from tests.docs.test_security import check_undocumented, documented
from tests.unit.serving.standing_in import PLAN, answer, model

PAGE = page("oip.md")
BOUNDS = BoundsCheck(PLAN, {}, Bounds(features={"v__x": Bound(low=0.0)}))
DECIDING = model(spec={"decisions": {"approve": 0.0}}, bounds=BOUNDS)
POLICY = Policy(function=len, actions=("approve",))
ACTING = model(spec={"policy": POLICY, "explore": Explore(share=0.1, action="approve")}, bounds=BOUNDS)


def test_every_output_is_documented_with_its_datatype() -> None:
    rows = table(PAGE, "output", "datatype", "shape", "meaning")
    found = {names(row["output"])[0]: (*names(row["datatype"]), names(row["shape"])[0].count(",")) for row in rows}
    outputs = {**Signature(DECIDING).outputs, **Signature(ACTING).outputs}
    assert found == {name: (item.datatype.name, len(item.shape) - 1) for name, item in outputs.items()}


def test_every_parameter_of_a_reply_is_documented() -> None:
    signature = Signature(DECIDING)
    given = answer(DECIDING, np.zeros(1))
    body, _ = encode_reply(signature.head(None, 1, degraded=False), build_outputs(signature, given, {"score": False}))
    rows = table(PAGE, "reply parameter", "meaning")
    assert [names(row["reply parameter"])[0] for row in rows] == list(json.loads(body)["parameters"])


def test_every_type_of_a_field_and_every_datatype_is_documented() -> None:
    rows = table(PAGE, "field", "datatypes", "meaning")
    assert {name for row in rows for name in names(row["field"])} == set(DType)
    told = {name for row in rows for name in names(row["datatypes"])}
    assert all(any(name == item or name.startswith(item) for item in told) for name in DATATYPES)


def test_every_route_is_documented() -> None:
    rows = table(section(page("oip.md"), "Routes"), "route", "answers")
    assert set(only([row["route"] for row in rows])) == own_routes()


def test_the_scope_of_every_route_is_documented() -> None:
    check_undocumented(own_routes())
    assert {request for request in documented() if " /v2" in request} <= own_routes()


def own_routes() -> set[str]:
    routes = routes_of(create_app(described_server(added={"oip": OipRoutes()})))
    return {route for route in routes if " /v2" in route}
