"""Monitors the id, the partitions and the ends of a Kafka topic, without blocking."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skewless.infra.streams.kafka_client import AdminClient, OffsetSpec, kafka

UNKNOWN_LIFE = "t0"
_REST_S = 5.0
_RETRY_S = 0.5
_ANSWER_S = 10.0
_ENDS_S = 0.5
_ENDS_ANSWER_S = 2.0
_ENDS_OLD_S = 1.8
_NO_ID = str(kafka.Uuid(0, 0))


@dataclass(frozen=True, kw_only=True)
class BrokerReply:
    """The reply of the broker: either an epoch or an error.

    Args:
        epoch: the id of the topic; ``UNKNOWN_LIFE`` if the broker does not support ids.
        names: of its partitions.
        error: the reason of a missing reply.
    """

    epoch: str | None = None
    names: tuple[str, ...] = ()
    error: kafka.KafkaError | None = None


class TopicMonitor:
    """Describes one topic every few seconds, and on request."""

    def __init__(self, topic: str, admin: AdminClient) -> None:
        self._topic = topic
        self._admin = admin
        self._request: Future[Any] | None = None
        self._next_request = 0.0

    def request(self) -> None:
        """Send a request now; replies to earlier requests are ignored."""
        collection = kafka.TopicCollection([self._topic])
        self._request = self._admin.describe_topics(collection, request_timeout=_ANSWER_S)[self._topic]
        # No further request while this one is open.
        self._next_request = float("inf")

    def request_soon(self) -> None:
        """Send the next request soon, because something is wrong."""
        self._next_request = min(self._next_request, time.monotonic() + _RETRY_S)

    def poll_reply(self) -> BrokerReply | None:
        """Return a reply once after it has arrived; send the next request when it is due.

        Raises:
            StoreError: the topic must not be described.
        """
        self._admin.poll(0)
        if self._request is not None and self._request.done():
            reply, self._request = _parse_reply(self._request), None
            self._next_request = time.monotonic() + (_RETRY_S if reply.error else _REST_S)
            return reply
        if self._request is None and time.monotonic() >= self._next_request:
            self.request()
        return None


class TopicEnds:
    """Requests the ends of a topic's partitions twice a second, without blocking."""

    def __init__(self, topic: str, admin: AdminClient) -> None:
        self._topic = topic
        self._admin = admin
        self._request: Mapping[Any, Future[Any]] = {}
        self._requested_at = 0.0
        self._next_request = 0.0
        self._ends: dict[int, tuple[int, float]] = {}

    def update(self, indices: Iterable[int]) -> None:
        """Store replies that have arrived, and send the next request when it is due."""
        self._admin.poll(0)
        if self._request and all(request.done() for request in self._request.values()):
            for partition, request in self._request.items():
                with suppress(kafka.KafkaException):
                    # The time of the request: the reply says nothing about messages that arrived after it.
                    self._ends[partition.partition] = request.result().offset, self._requested_at
            self._request = {}
        now, partitions = time.monotonic(), [kafka.TopicPartition(self._topic, index) for index in indices]
        if partitions and not self._request and now >= self._next_request:
            self._requested_at, self._next_request = now, now + _ENDS_S
            latest: Any = dict.fromkeys(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            self._request = self._admin.list_offsets(latest, request_timeout=_ENDS_ANSWER_S)

    def age_s(self, index: int, position: int) -> float | None:
        """Return the seconds since a partition ended at or before a position; None: it did not, or it is unknown."""
        end, requested_at = self._ends.get(index, (0, 0.0))
        age = time.monotonic() - requested_at
        return age if age < _ENDS_OLD_S and end <= position else None


def _parse_reply(request: Future[Any]) -> BrokerReply:
    try:
        topic = request.result()
    except kafka.KafkaException as error:
        return BrokerReply(error=error.args[0])
    epoch = UNKNOWN_LIFE if str(topic.topic_id) == _NO_ID else _file_name(str(topic.topic_id))
    return BrokerReply(epoch=epoch, names=tuple(str(partition.id) for partition in topic.partitions))


def _file_name(topic_id: str) -> str:
    """Return an id, which is Base64, with characters that file names allow.

    >>> _file_name("a+/b==")
    'a-_b'
    """
    return topic_id.translate(str.maketrans("+/", "-_", "="))
