"""Sinks under test: where they are, and what they have stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow.parquet as pq
from boto3.session import Session

from plugins.decisions.tests.decided import STREAM, decision_id
from skewless.contract.errors import StoreError
from skewless.contract.settings import Settings
from skewless.contract.sinks import KafkaSink, KinesisSink, ParquetSink, RedisStreamSink, Sink, WebhookSink
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.clients import RedisAddress, close_client, open_client
from skewless_decisions.delivery import SinkDelivery
from skewless_decisions.outbox import DecisionBatch, DecisionSink, Outbox
from skewless_decisions.sink_adapters import SinkContext, open_delivery
from skewless_decisions.sink_positions import Refusal, SinkPositions
from tests.servers.aws import REGION, AwsServer
from tests.servers.kafka import KafkaBroker
from tests.servers.node import Node
from tests.servers.webhook import HookReply, WebhookReceiver

Stored = tuple[str, Any]  # id of a decision, and its message: equal if the bytes are
SECRET = {"HOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


class SinkKind(Protocol):
    """One sink, empty at first."""

    sink: Sink

    def refuse(self, position: int) -> None:
        """Refuse the decision for an event, which is large, for good."""

    def stored(self) -> list[Stored]:
        """Return what the sink has stored, in its order for each key."""
        ...


class KafkaSinkKind:
    def __init__(self, broker: KafkaBroker, *, most_bytes: int | None = None) -> None:
        self._broker, topic = broker, f"d{uuid.uuid4().hex}"
        broker.make(topic, 2, most_bytes=most_bytes)
        self.sink: Sink = KafkaSink(name="out", topic=topic, servers=broker.bootstrap, key="card", batch=50)
        self._topic = topic

    def refuse(self, position: int) -> None:
        """Do nothing: the client refuses a message of more than a million bytes."""

    def stored(self) -> list[Stored]:
        return [
            (str(orjson.loads(message)["id"]), message)
            for messages in self._broker.read(self._topic)
            for message in messages
        ]


class KinesisSinkKind:
    def __init__(self, server: AwsServer) -> None:
        stream = f"d{uuid.uuid4().hex}"
        self._client: Any = Session().client("kinesis", region_name=REGION, endpoint_url=server.endpoint)
        self._client.create_stream(StreamName=stream, ShardCount=2)
        self.sink: Sink = KinesisSink(name="out", stream=stream, region=REGION, key="card", batch=50)
        self._stream = stream

    def refuse(self, position: int) -> None:
        """Do nothing: AWS refuses a record of more than 1 MiB."""

    def stored(self) -> list[Stored]:
        found = []
        for shard in self._client.list_shards(StreamName=self._stream)["Shards"]:
            start = {"ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = self._client.get_shard_iterator(StreamName=self._stream, **start)["ShardIterator"]
            found += [each["Data"] for each in self._client.get_records(ShardIterator=iterator)["Records"]]
        return [(str(orjson.loads(message)["id"]), message) for message in found]


class RedisSinkKind:
    def __init__(self, server: Node) -> None:
        self.url = server.url
        self.sink: Sink = RedisStreamSink(name="out", stream=f"decisions:{uuid.uuid4().hex}", batch=50)
        self._stream = self.sink.stream

    def refuse(self, position: int) -> None:
        """Do nothing: it refuses none for good."""

    def stored(self) -> list[Stored]:
        client = open_client(RedisAddress.parse(self.url), 5.0)
        try:
            entries = client.execute_command("XRANGE", self._stream, "-", "+")
        finally:
            close_client(client)
        return [(fields[b"id"].decode(), fields[b"decision"]) for _, fields in entries]


class WebhookSinkKind:
    def __init__(self, hook: WebhookReceiver) -> None:
        self._receiver = hook
        self.sink: Sink = WebhookSink(name="out", url=hook.url, secret_env="HOOK_SECRET", key="card", batch=50)  # noqa: S106 - a name

    def refuse(self, position: int) -> None:
        refused = decision_id(position)
        self._receiver.answer = lambda request: HookReply(422 if request.headers["webhook-id"] == refused else 200)

    def stored(self) -> list[Stored]:
        return [(request.headers["webhook-id"], request.body) for request in list(self._receiver.accepted)]


class ParquetSinkKind:
    def __init__(self, root: Path) -> None:
        self._root = root
        self.sink: Sink = ParquetSink(name="out", batch=50, every_s=0.05)

    def refuse(self, position: int) -> None:
        """Do nothing: it refuses none for good."""

    def stored(self) -> list[Stored]:
        files = sorted((self._root / "decisions" / "out").glob("*.parquet"))
        rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
        return [(row["id"], row) for row in rows]


class SinkWorld:
    """A project with one sink, and deliveries to it."""

    def __init__(self, root: Path, kind: SinkKind, redis_url: str, settings: Settings | None = None) -> None:
        self.root, self.kind, self.sink = root, kind, kind.sink
        self.state = ProjectState(root)
        self.context = SinkContext(
            state=self.state, settings=settings or Settings(), redis_url=lambda: redis_url, environment=SECRET
        )
        self.positions = SinkPositions(self.state.database)

    def delivery(self, wrap: Callable[[DecisionSink], DecisionSink] = lambda adapter: adapter) -> SinkDelivery:
        """Return a delivery that was not started."""

        def opened(context: SinkContext, sink: Sink, outbox: Outbox) -> DecisionSink:
            return wrap(open_delivery(context, sink, outbox))

        return SinkDelivery(self.context, self.sink, [STREAM], opened)

    def has_delivered(self, n: int) -> Callable[[], bool]:
        """Return whether so many decisions were confirmed or refused."""

        def reached() -> bool:
            position = self.positions.read(self.sink.name)
            return position is not None and position.confirmed + position.refused >= n

        return reached


class Faulty:
    """A sink that fails before or after its adapter stores, as told by a list of faults."""

    retry_after_s: float | None = None

    def __init__(self, adapter: DecisionSink, faults: list[str]) -> None:
        self._adapter, self._faults = adapter, faults

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        fault = self._faults.pop(0) if self._faults else ""
        if fault == "before":
            raise StoreError("sink", "is away", fix="wait")
        if fault == "half":  # a part is stored
            n = len(batch.decisions) // 2
            last = batch.positions[n - 1]
            part = replace(batch, last=last, positions=batch.positions[:n], decisions=batch.decisions[:n])
            self._adapter.send(part)
            raise StoreError("sink", "went away", fix="wait")
        refusals = self._adapter.send(batch)
        if fault == "after":
            raise StoreError("sink", "did not answer", fix="wait")
        return refusals

    def close(self) -> None:
        self._adapter.close()
