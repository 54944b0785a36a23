"""Sinks: where the decisions of a decision stream are delivered, declared as frozen data without secrets.

A secret is never a field: a field ends in ``_env`` and names the environment variable that has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from skewless.contract.errors import DefinitionError
from skewless.contract.loopback import is_loopback
from skewless.contract.names import check_name
from skewless.contract.plain_record import PlainRecord

MessageFormat = Literal["json", "avro", "protobuf"]
_MOST_BATCH, _MOST_WAITING, _MOST_SECONDS, _MOST_LANES = 10_000, 10_000_000, 300.0, 64
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, kw_only=True)
class _Sink(PlainRecord):
    """The fields of all sinks.

    Args:
        name: of the sink, unique in the project.
        batch: largest number of decisions in one delivery, 1 to 10,000.
        most_waiting: while more decisions than this wait for the sink, no event is decided, 1 to 10,000,000.
        timeout_s: seconds after which a delivery without an answer has failed, up to 300.
    """

    kind: ClassVar[str]
    name: str
    batch: int = 500
    most_waiting: int = 100_000
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        check_name("sink", self.name)
        self._check_range("batch", self.batch, 1, _MOST_BATCH)
        self._check_range("most_waiting", self.most_waiting, self.batch, _MOST_WAITING)
        self._check_range("timeout_s", self.timeout_s, 0.001, _MOST_SECONDS)
        for field, value in vars(self).items():
            if field.endswith("_env") and value is not None and not _VARIABLE.fullmatch(value):
                # Not quoted: it may be the secret itself.
                raise self._error(f"field {field!r} is not the name of an environment variable", "write it as MY_NAME")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the kind."""
        return {"kind": self.kind, **super().as_dict()}

    def _error(self, problem: str, fix: str, value: object = None) -> DefinitionError:
        return DefinitionError(f"sink {self.name!r}", problem, value=value, fix=fix)

    def _check_range(self, field: str, value: Any, low: float, high: float) -> None:  # noqa: ANN401 - it is checked
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            fix = f"write a number from {low:g} to {high:g}"
            raise self._error(f"field {field!r} is out of range", fix, value)


@dataclass(frozen=True, kw_only=True)
class _MessageSink(_Sink):
    """A sink of messages.

    Args:
        format: of a message. Avro and Protobuf messages begin with the id of their schema in the schema registry.
        subject: of the schema in the registry; None: ``TOPIC-value`` or ``NAME-value``.
        key: join key or request field of the model: decisions with one value are delivered in the order of the log.
            None: those about one log partition of events are.
    """

    format: MessageFormat = "json"
    subject: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        super().__post_init__()
        if self.format not in get_args(MessageFormat):
            formats = ", ".join(get_args(MessageFormat))
            raise self._error("has an unknown format", f"use one of: {formats}", self.format)
        if self.subject is not None and not _TOPIC.fullmatch(self.subject):
            raise self._error("has an invalid subject", "use letters, digits, '.', '_' and '-'", self.subject)

    @property
    def registry_subject(self) -> str:
        """Return the subject of its schema in the registry."""
        return self.subject or f"{self.name}-value"


@dataclass(frozen=True, kw_only=True)
class KafkaSink(_MessageSink):
    """Messages of a Kafka topic, stored on all in-sync replicas; ``key`` is the key of a message.

    Args:
        topic: of Kafka.
        servers: of Kafka, as ``host:port,host:port``.
        options_env: environment variable with librdkafka's settings as a JSON object, for TLS and passwords;
            None: the setting ``kafka`` of the project.
    """

    kind: ClassVar[str] = "kafka"
    topic: str
    servers: str
    options_env: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        super().__post_init__()
        if not _TOPIC.fullmatch(self.topic):
            raise self._error("has an invalid topic", "use letters, digits, '.', '_' and '-'", self.topic)
        if not self.servers:
            raise self._error("has no servers", "write them as host:port,host:port")

    @property
    def registry_subject(self) -> str:
        """Return the subject of its schema in the registry."""
        return self.subject or f"{self.topic}-value"


@dataclass(frozen=True, kw_only=True)
class KinesisSink(_MessageSink):
    """Records of a Kinesis stream; ``key`` is their partition key. Credentials are those of AWS's tools.

    Args:
        stream: name of the stream.
        region: of AWS.
    """

    kind: ClassVar[str] = "kinesis"
    stream: str
    region: str

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        super().__post_init__()
        for field in ("stream", "region"):
            if not _TOPIC.fullmatch(getattr(self, field)):
                fix = "use letters, digits, '.', '_' and '-'"
                raise self._error(f"has an invalid {field}", fix, getattr(self, field))


@dataclass(frozen=True, kw_only=True)
class RedisStreamSink(_MessageSink):
    """Entries of a Redis stream, with the fields ``id`` and ``decision``.

    Args:
        stream: key of the stream.
        most_entries: about this many entries are kept, the latest ones; None: all.
        url_env: environment variable with the URL of Redis; None: the Redis of the project's streams.
    """

    kind: ClassVar[str] = "redis"
    stream: str
    most_entries: int | None = None
    url_env: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        super().__post_init__()
        check_name(f"stream of sink {self.name!r}", self.stream.replace(":", "_"))
        if self.most_entries is not None:
            self._check_range("most_entries", self.most_entries, 1, 2**53)


@dataclass(frozen=True, kw_only=True)
class WebhookSink(_MessageSink):
    """HTTP requests, one for each decision, signed with HMAC-SHA-256; the idempotency key is the decision's id.

    Args:
        url: https, or http to this machine; without a password. Redirects are not followed.
        secret_env: environment variable with the key of the signature: base64 of at least 16 bytes, perhaps after
            ``whsec_``. Several keys, with spaces in between, give several signatures.
        token_env: environment variable with a bearer token; None: none is sent.
        connections: number of requests at a time, 1 to 64; those of one key are sent one after the other.
        most_attempts: attempts after which a decision that the receiver answers with a 5xx status goes to the dead
            letters; None: it is sent until the receiver accepts it, and later decisions wait.
        allow_http: allow http to other machines: others can read the decisions.
    """

    kind: ClassVar[str] = "webhook"
    batch: int = 100
    url: str
    secret_env: str
    token_env: str | None = None
    connections: int = 4
    most_attempts: int | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        super().__post_init__()
        self._check_range("connections", self.connections, 1, _MOST_LANES)
        if self.most_attempts is not None:
            self._check_range("most_attempts", self.most_attempts, 1, 1_000_000)
        # The URL is not quoted: it may have a secret in its path.
        try:
            url = urlsplit(self.url)
            is_valid = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0 and not url.fragment
        except ValueError:
            is_valid = False
        if not is_valid or re.search(r"[\x00-\x20\x7f-\uffff]", self.url):
            raise self._error("has a URL that is neither http nor https", "write it as https://host/path")
        if url.username is not None or url.password is not None:
            raise self._error("has a password in its URL", "use 'token_env'")
        if url.scheme == "http" and not self.allow_http and not is_loopback(url.hostname or ""):
            raise self._error("sends decisions without TLS to another machine", "use https, or set 'allow_http'")


@dataclass(frozen=True, kw_only=True)
class ParquetSink(_Sink):
    """Parquet files in the project's storage, below ``decisions/NAME``, named by their positions in the log.

    Args:
        every_s: seconds after which waiting decisions are written, even if they are fewer than ``batch``.
    """

    kind: ClassVar[str] = "parquet"
    batch: int = _MOST_BATCH
    every_s: float = 10.0

    def __post_init__(self) -> None:
        """Check the fields; raise DefinitionError."""
        super().__post_init__()
        self._check_range("every_s", self.every_s, 0, 86_400)


Sink: TypeAlias = KafkaSink | KinesisSink | RedisStreamSink | WebhookSink | ParquetSink
_KINDS: Mapping[str, type[Sink]] = {each.kind: each for each in get_args(Sink)}


def sink_from_dict(data: Mapping[str, Any]) -> Sink:
    """Return a sink from the result of its ``as_dict``.

    >>> sink = KafkaSink(name="fraud-out", topic="decisions", servers="localhost:9092")
    >>> sink_from_dict(sink.as_dict()) == sink
    True
    """
    fields = dict(data)
    return _KINDS[fields.pop("kind")](**fields)


def read_secret(sink: Sink, variable: str, environment: Mapping[str, str]) -> str:
    """Return the value of an environment variable that a field of a sink names, without blanks around it.

    Raises:
        DefinitionError: it is not set, or empty.
    """
    value = environment.get(variable, "").strip()
    if not value:
        raise DefinitionError(f"environment variable {variable!r} of sink {sink.name!r}", "is not set", fix="set it")
    return value
