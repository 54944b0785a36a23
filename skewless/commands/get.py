"""``skewless get``: the features of one entity online, and their values in the log at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.cells import label, labelled_cell
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output, table
from skewless.commands.tables import TextTable
from skewless.contract.errors import RequestError, SkewlessError
from skewless.operations.entity_values import EntityView

Name = Annotated[str, typer.Argument(metavar="VIEW|SERVICE", help="Name of a feature view or a feature service.")]
Key = Annotated[
    list[str] | None, typer.Option("--key", metavar="NAME=VALUE", help="Value of a join key; once for each key.")
]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="Show the log's values at this time too (ISO 8601, or microseconds)."),
]
_SIDES = {"online": "now online", "knowledge": "known then", "event_time": "event time"}
_FACTS = ("status", "age_s", "watermark_age_s", "event_time", "created_time", "run", "position")


def get(name: Name, *, key: Key = None, as_of: AsOf = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show the features of one entity in the online store, with status, age and origin."""
    with command_output(as_json=as_json, is_short=True) as output:
        keys = dict(item.partition("=")[::2] for item in key or ())
        as_of_us = None if as_of is None else _parse_time(as_of)
        values = open_project(output, repo).get(name, keys, as_of_us=as_of_us)
        output.show(values.as_dict(), *map(_table, values.views))


def _parse_time(text: str) -> int:
    from skewless.contract.columns import Column
    from skewless.contract.dtypes import DType
    from skewless.contract.request import parse_field

    column = Column(name="--as-of", dtype=DType.TIMESTAMP)
    try:
        value = parse_field(column, int(text) if text.lstrip("-").isdigit() else text)
    except SkewlessError as error:
        raise RequestError("option --as-of", "is not a time", value=text, fix=error.fix) from error
    return int(str(value))


def _table(view: EntityView) -> TextTable:
    sides = view.sides.values()
    rows = [(label(fact), *(_fact(fact, getattr(side, fact)) for side in sides)) for fact in _FACTS]
    rows += [(name, *(_value(side.features[name]) for side in sides)) for name in view.sides["online"].features]
    return table(view.view, ("", *(_SIDES[side] for side in view.sides)), rows)


def _fact(name: str, value: object) -> object:
    return str(value) if isinstance(value, int) else labelled_cell(name, value)


def _value(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else repr(value)
