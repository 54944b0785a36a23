"""A stream of a Kinesis that is moto's, or that of ``KINESIS_ENDPOINT``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.kinesis.tests.kinesis_place import ENDPOINT, KinesisPlace
from tests.contract.streams import StreamKind
from tests.servers.aws import AwsServer, running_aws
from tests.servers.object_storage import CREDENTIALS

pytest.register_assert_rewrite("tests.contract.test_streams", "tests.contract.test_stream_ends")


@pytest.fixture(scope="session")
def aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer | None]:
    named = os.environ.get("KINESIS_ENDPOINT")
    with pytest.MonkeyPatch.context() as patch:
        if named:
            for name, value in {**CREDENTIALS, ENDPOINT: named}.items():
                patch.setenv(name, value)
            yield None
        else:
            with running_aws(tmp_path_factory.mktemp("kinesis")) as server:
                patch.setenv(ENDPOINT, server.endpoint)
                yield server


@pytest.fixture
def kinesis_place(aws_server: AwsServer | None, tmp_path: Path) -> KinesisPlace:
    if aws_server is not None:
        aws_server.fail()
    return KinesisPlace(tmp_path, aws_server)


@pytest.fixture
def stream_place(kinesis_place: KinesisPlace) -> StreamKind:
    return kinesis_place


@pytest.fixture
def stoppable(aws_server: AwsServer | None, kinesis_place: KinesisPlace) -> StreamKind:
    if aws_server is None:
        pytest.skip("a server that the tests did not start is not stopped")
    return kinesis_place
