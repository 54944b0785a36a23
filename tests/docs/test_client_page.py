"""The page on the client lists the options, calls and defaults that exist."""

from __future__ import annotations

import dataclasses
import inspect
from typing import get_type_hints

import pytest

from skewless.client import AsyncClient, Client, Limits, PredictOptions, Retries
from tests.docs.pages import names, page, table


def calls_of(client: type[object]) -> set[str]:
    """Return the public methods of a client."""
    return {name for name, _ in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}


def test_every_call_is_documented_and_both_clients_have_it() -> None:
    rows = table(page("client.md"), "call", "returns")
    found = {names(row["call"])[0].partition("(")[0] for row in rows}
    assert found == calls_of(Client) == calls_of(AsyncClient)


@pytest.mark.parametrize("name", sorted(calls_of(Client)))
def test_both_clients_take_the_same(name: str) -> None:
    one, two = (inspect.signature(getattr(client, name)) for client in (Client, AsyncClient))
    assert one == two


def test_every_option_of_a_prediction_is_documented() -> None:
    rows = table(page("client.md"), "option", "meaning")
    assert {names(row["option"])[0] for row in rows} == set(get_type_hints(PredictOptions))


@pytest.mark.parametrize(("kind", "column"), [(Limits, "limit"), (Retries, "retry")])
def test_every_limit_is_documented_with_its_default(kind: type[Limits | Retries], column: str) -> None:
    rows = table(page("client.md"), column, "default", "meaning")
    found = {names(row[column])[0]: row["default"] for row in rows}
    assert found == {item.name: str(item.default) for item in dataclasses.fields(kind)}
