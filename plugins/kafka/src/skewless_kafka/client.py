"""The Kafka client: its settings and errors, a sender, and monitors of a topic's id, partitions and ends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from logging import DEBUG
from typing import Any, NamedTuple, TypeAlias

import confluent_kafka as kafka
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it does not list it

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.ingest.streams.port import StreamError
from skewless.infra.platform.telemetry.logger import EventLogger

# The names of the client's own errors begin with an underscore.
END_OF_PARTITION = kafka.KafkaError._PARTITION_EOF  # noqa: SLF001 - it has no public name
OUT_OF_RANGE = {kafka.KafkaError._AUTO_OFFSET_RESET, kafka.KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001
MISSING_TOPIC = {
    kafka.KafkaError.UNKNOWN_TOPIC_ID,
    kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    kafka.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    kafka.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
}
_LACKING = {
    kafka.KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
    kafka.KafkaError.UNSUPPORTED_VERSION,
}
TIMED_OUT = kafka.KafkaError._TIMED_OUT  # noqa: SLF001

# The listener decides where to continue, so lost positions must be reported. The end of a partition must be reported
# too, because the marker at the end of a transaction has a position and is not a message.
_OWN_SETTINGS = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
}
_STRATEGY = "partition.assignment.strategy"  # of the classic protocol; in the newer one, the brokers assign
# How soon a new topic, partition or controller is found; the client's default is five minutes.
_DEFAULTS = {"topic.metadata.refresh.interval.ms": 5_000}
# No message expires or is refused alone, because later ones could be stored without it: a call gives up all that it has
# left. A refusal ends the client.
_GAPLESS = "enable.gapless.guarantee"
_OWN_PRODUCER_SETTINGS = {"acks": "all", "enable.idempotence": True, _GAPLESS: True, "message.timeout.ms": 0}
_RESERVED = {
    *_OWN_SETTINGS, *_OWN_PRODUCER_SETTINGS, _STRATEGY, "bootstrap.servers", "delivery.timeout.ms", "group.id", "logger"
}  # fmt: skip

_log = EventLogger()
UNKNOWN_LIFE = "t0"
_REST_S = 5.0
_RETRY_S = 0.5
_ANSWER_S = 10.0
_ENDS_S = 0.5
_ENDS_ANSWER_S = 2.0
_ENDS_OLD_S = 1.8
_NEW_ID = re.compile(r"Topic .* changed id from \S+ to (\S+)")
_FILE_NAME = str.maketrans("+/", "-_", "=")  # from Base64
_NO_ID = str(kafka.Uuid(0, 0)).translate(_FILE_NAME)
_GRACE_S = 2.0


class ClientLog:
    """Forwards the client's log lines to our log; they contain no settings.

    Args:
        on_topic_id: receives the id by which the client reads the topic from now on; its log is the only place that
            has it. Lines of a level of debugging are not forwarded then.
    """

    def __init__(self, on_topic_id: Callable[[str], None] | None = None) -> None:
        self._on_topic_id = on_topic_id

    def log(self, level: int, form: str, *parts: object) -> None:
        """Log one line; ``level`` as in the standard library."""
        line = form % parts
        if self._on_topic_id and (changed := _NEW_ID.search(line)):
            self._on_topic_id(changed[1].translate(_FILE_NAME))
        if level <= DEBUG and self._on_topic_id:
            return
        if f"{_GAPLESS} is experimental" not in line:  # since 2018
            _log.log(min(max(level, 10), 50), "kafka_client_logged", line=line)


def broker_error(topic: str, error: kafka.KafkaError) -> StreamError:
    """Return the error for a request that the broker rejects."""
    fix = "correct the address, the permissions or the settings of Kafka; no data was lost"
    if error.code() in _LACKING or "not supported" in error.str():
        fix = "install Apache Kafka 4 or later, or remove group.protocol from the setting 'kafka'"
    return StreamError(
        f"Kafka topic {topic!r}",
        f"was rejected by the broker: {error.str()}",
        value=error.name(),
        fix=fix,
    )


@contextmanager
def translate_settings_errors(topic: str) -> Iterator[None]:
    """Raise DefinitionError for invalid client settings; their values are not quoted."""
    try:
        yield
    except kafka.KafkaException as error:
        problem = error.args[0].str().partition("value")[0]
        raise DefinitionError(
            f"settings of Kafka topic {topic!r}", f"are invalid: {problem}", fix="correct the settings of librdkafka"
        ) from None


def is_incremental(extra: Mapping[str, Any]) -> bool:
    """Return whether a group uses the newer protocol (KIP-848), which assigns and revokes single partitions."""
    return str(extra.get("group.protocol")).lower() == "consumer"


def consumer_settings(
    bootstrap: str, group: str, topic: str, extra: Mapping[str, Any], on_topic_id: Callable[[str], None]
) -> dict[str, Any]:
    """Return the settings of a consumer group member; ``on_topic_id`` as for ``ClientLog``.

    Raises:
        DefinitionError: ``extra`` has a setting that skewless sets itself.
    """
    settings = {**_DEFAULTS, **_check_settings(extra)}
    if not is_incremental(extra):
        settings[_STRATEGY] = "range,roundrobin"
    if static := settings.get("group.instance.id"):
        settings["group.instance.id"] = f"{static}-{topic}"  # the sources of a worker are members of one group
    settings["debug"] = f"{settings.get('debug', '')},topic".strip(",")
    return {
        **settings, **_OWN_SETTINGS,
        "bootstrap.servers": bootstrap, "group.id": group, "logger": ClientLog(on_topic_id),
    }  # fmt: skip


def producer_settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a producer that stores each message once, in order, on all in-sync replicas.

    Raises:
        DefinitionError: ``extra`` has a setting that skewless sets itself.
    """
    # The same partition for a key as Java's producers.
    settings = {"partitioner": "murmur2_random", "linger.ms": 0, **_check_settings(extra)}
    return {**settings, **_OWN_PRODUCER_SETTINGS, "bootstrap.servers": bootstrap, "logger": ClientLog()}


def admin_settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a client that only describes topics; it needs the same credentials."""
    shared = ("client.", "sasl.", "security.", "socket.", "ssl.", "broker.", "reconnect.", "enable.ssl", "enable.sasl")
    allowed = {name: value for name, value in extra.items() if name.startswith(shared)}
    return {**_DEFAULTS, **allowed, "bootstrap.servers": bootstrap, "logger": ClientLog()}


def _check_settings(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    reserved = sorted(_RESERVED & set(extra))
    if reserved:
        raise DefinitionError(
            "settings of Kafka", "include settings that skewless sets", value=", ".join(reserved), fix="remove them"
        )
    return extra


# The id of a topic (``UNKNOWN_LIFE`` if the broker does not support ids) and the names of its partitions, or an error.
BrokerReply: TypeAlias = tuple[str, tuple[str, ...]] | kafka.KafkaError


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
            self._next_request = time.monotonic() + (_RETRY_S if isinstance(reply, kafka.KafkaError) else _REST_S)
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


class TopicFacts(NamedTuple):
    """A topic as the brokers describe it; ``has_id``: they are of Kafka 3.1 or later, and give it an id."""

    partitions: int
    brokers: int
    has_id: bool


def describe_topic(topic: str, bootstrap: str, extra: Mapping[str, Any], timeout_s: float) -> TopicFacts:
    """Return the facts of a topic.

    Raises:
        StoreError: no broker answers, or the topic does not exist or must not be described.
        DefinitionError: the client's settings are invalid.
    """
    with translate_settings_errors(topic):
        admin = AdminClient(admin_settings(bootstrap, extra))
    collection = kafka.TopicCollection([topic])
    try:
        # Of all topics: a request for one could create it.
        metadata = admin.list_topics(timeout=timeout_s)
        if topic not in metadata.topics:
            fix = "create it, or correct the source's topic"
            raise StoreError(f"Kafka topic {topic!r}", "does not exist, or must not be described", fix=fix)
        description = admin.describe_topics(collection, request_timeout=timeout_s)[topic].result(timeout_s)
    except kafka.KafkaException as error:
        raise broker_error(topic, error.args[0]) from error
    has_id = str(description.topic_id).translate(_FILE_NAME) != _NO_ID
    return TopicFacts(partitions=len(description.partitions), brokers=len(metadata.brokers), has_id=has_id)


def _parse_reply(request: Future[Any]) -> BrokerReply:
    try:
        topic = request.result()
    except kafka.KafkaException as error:
        reply: kafka.KafkaError = error.args[0]
        return reply
    topic_id = str(topic.topic_id).translate(_FILE_NAME)
    return UNKNOWN_LIFE if topic_id == _NO_ID else topic_id, tuple(str(partition.id) for partition in topic.partitions)


class KafkaSender:
    """Implements ``EventSender``: a message is stored once per call, on all in-sync replicas.

    After a failed call, a part of the messages may be stored: those of a key up to one of them, and none after it.

    Args:
        bootstrap: first brokers to contact, ``HOST:PORT,HOST:PORT``.
        topic: must exist, unless the broker creates topics automatically.
        settings: of librdkafka, for example for TLS and passwords; never logged.
        timeout_s: how long a call waits until all of its messages are stored, in seconds.

    Raises:
        DefinitionError: the settings are invalid.
    """

    def __init__(
        self, bootstrap: str, topic: str, *, settings: Mapping[str, Any] | None = None, timeout_s: float = 30.0
    ) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self._settings = producer_settings(bootstrap, settings or {})
        self._errors: list[kafka.KafkaError] = []
        self._producer = self._open_producer()

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages; see ``EventSender``."""
        self._errors.clear()
        error = kafka.KafkaError(TIMED_OUT)
        try:
            for number, payload in enumerate(payloads):
                self._produce(payload, None if keys is None else keys[number])
            if self._wait(self._timeout_s):
                if not self._errors:
                    return
                error = self._errors[0]
        except kafka.KafkaException as raised:
            error = raised.args[0]
        raise self._abort(error)

    def broker_hosts(self) -> list[str]:
        """Return the hosts that the brokers of the cluster advertise; the sender connects to them.

        Raises:
            StoreError: no broker answers.
        """
        try:
            brokers = self._producer.list_topics(self._topic, timeout=self._timeout_s).brokers
        except kafka.KafkaException as error:
            raise broker_error(self._topic, error.args[0]) from error
        return [str(broker.host) for broker in brokers.values()]

    def close(self) -> None:
        """Flush and close; see ``EventSender``."""
        with suppress(kafka.KafkaException):
            self._wait(_GRACE_S)

    def _wait(self, timeout_s: float) -> bool:
        """Wait until no message is left; return whether none is. The client's ``flush`` cannot raise its end."""
        deadline = time.monotonic() + timeout_s
        while len(self._producer):
            if (rest_s := deadline - time.monotonic()) <= 0:
                return False
            self._producer.poll(rest_s)
        return True

    def _open_producer(self) -> kafka.Producer:
        with translate_settings_errors(self._topic):
            return kafka.Producer(self._settings)

    def _produce(self, payload: bytes, key: str | None) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value=payload, key=key, on_delivery=self._on_delivery)
            except BufferError:
                # The client's queue is full; handling deliveries makes room.
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: kafka.KafkaError | None, _: kafka.Message) -> None:
        if error is not None:
            self._errors.append(error)

    def _abort(self, error: kafka.KafkaError) -> StoreError:
        """Return the error to raise, and discard queued messages: they must not be delivered after later ones."""
        self._producer.purge()
        for _ in range(2):  # a fatal error ends the first, before it has handled the deliveries that failed
            self.close()
        self._producer = self._open_producer()  # a fatal error ends a producer
        # Whatever is raised first: the broker's own error is the cause.
        causes = (each for each in self._errors if not each.name().startswith("_"))
        return broker_error(self._topic, next(causes, error))
