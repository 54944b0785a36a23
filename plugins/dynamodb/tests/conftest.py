"""A table of a DynamoDB that is moto's, empty before each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from tests.contract.store import StorePlace
from tests.servers.aws import REGION, AwsServer, running_aws

pytest.register_assert_rewrite("tests.contract.test_online", "tests.contract.test_stores", "tests.contract.test_tiles")
_numbers = itertools.count()
_LONG = {"test_1_4_1_values_are_removed_by_their_keys"}  # thousands of calls, which moto answers one after another


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that are long here alone."""
    for item in items:
        if item.name in _LONG and Path(__file__).parent in item.path.parents:
            item.add_marker("soak")


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    with running_aws(tmp_path_factory.mktemp("aws")) as server:
        yield server


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """The server of the contract tests: moto, or ``DYNAMODB_ENDPOINT``."""
    named = os.environ.get("DYNAMODB_ENDPOINT")
    if named and "aws" not in request.fixturenames:
        return named
    aws: AwsServer = request.getfixturevalue("aws")
    aws.fail()
    return aws.endpoint


@pytest.fixture
def dynamodb_client(endpoint: str) -> Any:  # noqa: ANN401 - boto3's clients are untyped
    return Session().client("dynamodb", region_name=REGION, endpoint_url=endpoint)


def make_table(dynamodb_client: Any, name: str) -> None:  # noqa: ANN401
    dynamodb_client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "B"}],
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def online_place(endpoint: str, dynamodb_client: Any) -> Iterator[StorePlace]:  # noqa: ANN401
    """An empty store."""
    name = f"features-{next(_numbers)}"
    make_table(dynamodb_client, name)

    def lose() -> None:
        dynamodb_client.delete_table(TableName=name)
        make_table(dynamodb_client, name)

    url = f"dynamodb://{REGION}/{name}?endpoint="
    yield StorePlace(kind="dynamodb", url=url + endpoint, lose=lose, away=url + "http://127.0.0.1:1")
    dynamodb_client.delete_table(TableName=name)
