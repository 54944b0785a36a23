"""``skewless get``: what the online store holds for one entity, and the offline truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table
from skewless.contract.errors import RequestError, SkewlessError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.entity_values import EntityView

Name = Annotated[str, typer.Argument(metavar="VIEW|SERVICE", help="Name of a feature view or a feature service.")]
Key = Annotated[list[str] | None, typer.Option("--key", metavar="NAME=VALUE", help="One key; once for each.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="Show beside it what the log says of this moment (ISO 8601, or us)."),
]
_SIDES = {"online": "now online", "knowledge": "known then", "event_time": "event time"}
_FACTS = ("status", "age_s", "watermark_age_s", "event_time", "created_time", "run", "position")


def get(name: Name, *, key: Key = None, as_of: AsOf = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show an entity's online values with their status, age and origin."""
    with answering(as_json=as_json) as output:
        keys = dict(item.partition("=")[::2] for item in key or ())
        as_of_us = None if as_of is None else _moment(as_of)
        values = open_project(output, repo).get(name, keys, as_of_us=as_of_us)
        output.answer(values.as_dict(), *map(_table, values.views))


def _moment(text: str) -> int:
    from skewless.contract.columns import Column
    from skewless.contract.dtypes import DType
    from skewless.contract.request import parse_field

    column = Column(name="--as-of", dtype=DType.TIMESTAMP)
    try:
        moment = parse_field(column, int(text) if text.lstrip("-").isdigit() else text)
    except SkewlessError as error:
        raise RequestError("option --as-of", "is not a time", value=text, fix=error.fix) from error
    return int(str(moment))


def _table(view: EntityView) -> RenderableType:
    sides = view.sides.values()
    rows = [(fact, *(_text(getattr(side, fact)) for side in sides)) for fact in _FACTS]
    rows += [(name, *(_text(side.features[name]) for side in sides)) for name in view.sides["online"].features]
    return table(view.view, ("", *(_SIDES[side] for side in view.sides)), rows)


def _text(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else repr(value)
