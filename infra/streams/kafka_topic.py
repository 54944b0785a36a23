"""Asks a broker, without waiting, which life of a topic there is, and so whether it answers at all."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from infra.streams.kafka_client import AdminClient, kafka

UNKNOWN_LIFE = "t0"
_REST_S = 5.0
_RETRY_S = 0.5
_ANSWER_S = 10.0
_NO_ID = str(kafka.Uuid(0, 0))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the broker said, one of both.

    Args:
        epoch: the id of the topic; ``UNKNOWN_LIFE`` from a broker that gives none.
        names: of its partitions.
        error: why there is no answer.
    """

    epoch: str | None = None
    names: tuple[str, ...] = ()
    error: kafka.KafkaError | None = None


class TopicWatch:
    """Looks at one topic every few seconds, and when asked to."""

    def __init__(self, topic: str, admin: AdminClient) -> None:
        self._topic = topic
        self._admin = admin
        self._asked: Future[Any] | None = None
        self._next = 0.0

    def ask(self) -> None:
        """Ask now: what was asked before this moment is not answered any more."""
        collection = kafka.TopicCollection([self._topic])
        self._asked = self._admin.describe_topics(collection, request_timeout=_ANSWER_S)[self._topic]
        self._next = float("inf")

    def hurry(self) -> None:
        """Look again soon: something is wrong."""
        self._next = min(self._next, time.monotonic() + _RETRY_S)

    def answer(self) -> Answer | None:
        """Return an answer that has come, once; ask again when it is time.

        Raises:
            StoreError: the topic may not be looked at.
        """
        self._admin.poll(0)
        if self._asked is not None and self._asked.done():
            found, self._asked = _answer(self._asked), None
            self._next = time.monotonic() + (_RETRY_S if found.error else _REST_S)
            return found
        if self._asked is None and time.monotonic() >= self._next:
            self.ask()
        return None


def _answer(asked: Future[Any]) -> Answer:
    try:
        topic = asked.result()
    except kafka.KafkaException as error:
        return Answer(error=error.args[0])
    epoch = UNKNOWN_LIFE if str(topic.topic_id) == _NO_ID else _safe(str(topic.topic_id))
    return Answer(epoch=epoch, names=tuple(str(partition.id) for partition in topic.partitions))


def _safe(topic_id: str) -> str:
    """Return an id, which is Base64, as it may stand in the name of a file.

    >>> _safe("a+/b==")
    'a-_b'
    """
    return topic_id.translate(str.maketrans("+/", "-_", "="))
