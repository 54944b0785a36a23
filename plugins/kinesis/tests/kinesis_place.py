"""A Kinesis stream under test: moto's, or that of ``KINESIS_ENDPOINT``."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from skewless.infra.ingest.streams.port import RebalanceListener
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless_kinesis.client import KinesisClient, KinesisSender
from skewless_kinesis.stream import KinesisStream
from tests.contract.streams import LEASE_S, N
from tests.servers.aws import REGION, AwsServer
from tests.worlds.waiting import until

ACTIONS = ("DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords", "PutRecords")
ENDPOINT = "AWS_ENDPOINT_URL_KINESIS"


class KinesisPlace:
    """See ``StreamKind``."""

    late_s = 1.0

    def __init__(self, folder: Path, server: AwsServer | None, n: int = N) -> None:
        self.server = server
        self.database = ProjectState(folder).database
        self.name = f"s{uuid.uuid4().hex}"
        self.aws: Any = Session().client("kinesis", region_name=REGION, endpoint_url=os.environ[ENDPOINT])
        self._n, self.lease_s = n, LEASE_S
        self.make()

    def make(self) -> None:
        self.aws.create_stream(StreamName=self.name, ShardCount=self._n)
        until(lambda: self._status() == "ACTIVE")

    def stream(self, owner: RebalanceListener, group: str) -> KinesisStream:
        return KinesisStream(
            KinesisClient(REGION, self.name),
            database=self.database,
            source=self.name,
            owner=owner,
            group=group,
            lease_s=self.lease_s,
            interval_s=0.01,
            facts_s=0.0,
        )

    def sender(self) -> KinesisSender:
        return KinesisSender(REGION, self.name, timeout_s=2.0)

    def send_nothing(self) -> None:
        pytest.skip("a record of Kinesis has a body, which may be empty")

    def records(self, group: str) -> dict[str, Any]:
        epoch = KinesisClient(REGION, self.name).describe().epoch
        return Documents(self.database, f"kinesis {self.name} {group} {epoch}").list_all()

    def committed(self, group: str) -> dict[int, int]:
        return {int(name): each["committed"] for name, each in self.records(group).items() if each["committed"]}

    def recreate(self) -> None:
        self.aws.delete_stream(StreamName=self.name)
        until(lambda: self._status() is None)
        self.make()

    def away(self) -> None:
        assert self.server is not None
        self.server.fail(*({"action": action, "code": "ServiceUnavailable", "n": 1_000_000} for action in ACTIONS))

    def back(self) -> None:
        assert self.server is not None
        self.server.fail()

    def split(self, shard: int) -> None:
        item = self.shard(shard)["HashKeyRange"]
        middle = (int(item["StartingHashKey"]) + int(item["EndingHashKey"])) // 2
        name = self.shard(shard)["ShardId"]
        self.aws.split_shard(StreamName=self.name, ShardToSplit=name, NewStartingHashKey=str(middle))
        until(lambda: self._status() == "ACTIVE")

    def merge(self, one: int, two: int) -> None:
        names = [self.shard(each)["ShardId"] for each in (one, two)]
        self.aws.merge_shards(StreamName=self.name, ShardToMerge=names[0], AdjacentShardToMerge=names[1])
        until(lambda: self._status() == "ACTIVE")

    def shard(self, number: int) -> Any:  # noqa: ANN401
        shards = self.aws.list_shards(StreamName=self.name)["Shards"]
        return next(each for each in shards if int(each["ShardId"].rpartition("-")[2]) == number)

    def _status(self) -> str | None:
        try:
            return str(self.aws.describe_stream(StreamName=self.name)["StreamDescription"]["StreamStatus"])
        except self.aws.exceptions.ResourceNotFoundException:
            return None
