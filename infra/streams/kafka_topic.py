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
        self._asked: Future[Any] | None = None
        self._next = 0.0

    def ask(self) -> None:
        """Send a request now; replies to earlier requests are ignored."""
        collection = kafka.TopicCollection([self._topic])
        self._asked = self._admin.describe_topics(collection, request_timeout=_ANSWER_S)[self._topic]
        self._next = float("inf")

    def hurry(self) -> None:
        """Send the next request soon, because something is wrong."""
        self._next = min(self._next, time.monotonic() + _RETRY_S)

    def answer(self) -> BrokerReply | None:
        """Return a reply once after it has arrived; send the next request when it is due.

        Raises:
            StoreError: the topic must not be described.
        """
        self._admin.poll(0)
        if self._asked is not None and self._asked.done():
            found, self._asked = _answer(self._asked), None
            self._next = time.monotonic() + (_RETRY_S if found.error else _REST_S)
            return found
        if self._asked is None and time.monotonic() >= self._next:
            self.ask()
        return None


class TopicEnds:
    """Requests the ends of a topic's partitions twice a second, without blocking."""

    def __init__(self, topic: str, admin: AdminClient) -> None:
        self._topic = topic
        self._admin = admin
        self._asked: Mapping[Any, Future[Any]] = {}
        self._asked_at = 0.0
        self._next = 0.0
        self._ends: dict[int, tuple[int, float]] = {}

    def look(self, indices: Iterable[int]) -> None:
        """Store replies that have arrived, and send the next request when it is due."""
        self._admin.poll(0)
        if self._asked and all(asked.done() for asked in self._asked.values()):
            for place, asked in self._asked.items():
                with suppress(kafka.KafkaException):
                    self._ends[place.partition] = asked.result().offset, self._asked_at
            self._asked = {}
        now, places = time.monotonic(), [kafka.TopicPartition(self._topic, index) for index in indices]
        if places and not self._asked and now >= self._next:
            self._asked_at, self._next = now, now + _ENDS_S
            latest: Any = dict.fromkeys(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            self._asked = self._admin.list_offsets(latest, request_timeout=_ENDS_ANSWER_S)

    def age_s(self, index: int, position: int) -> float | None:
        """Return the seconds since a partition ended at or before a position; None: it did not, or it is unknown."""
        end, asked_at = self._ends.get(index, (0, 0.0))
        age = time.monotonic() - asked_at
        return age if age < _ENDS_OLD_S and end <= position else None


def _answer(asked: Future[Any]) -> BrokerReply:
    try:
        topic = asked.result()
    except kafka.KafkaException as error:
        return BrokerReply(error=error.args[0])
    epoch = UNKNOWN_LIFE if str(topic.topic_id) == _NO_ID else _safe(str(topic.topic_id))
    return BrokerReply(epoch=epoch, names=tuple(str(partition.id) for partition in topic.partitions))


def _safe(topic_id: str) -> str:
    """Return an id, which is Base64, with characters that file names allow.

    >>> _safe("a+/b==")
    'a-_b'
    """
    return topic_id.translate(str.maketrans("+/", "-_", "="))
