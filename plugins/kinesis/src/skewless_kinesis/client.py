"""The calls of one Kinesis stream, with errors that have their fix, and a sender."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError

from skewless.contract.errors import StoreError

EXPIRED, MISSING = "ExpiredIteratorException", "ResourceNotFoundException"
_THROTTLED = {"ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException"}
_DENIED = {"AccessDeniedException", "ExpiredTokenException", "InvalidClientTokenId", "InvalidSignatureException"}
_DENIED |= {"403", "KMSAccessDeniedException", "MissingAuthenticationTokenException", "UnrecognizedClientException"}
_PER_CALL, _CALL_BYTES, _KEY_CHARS, _CONNECTIONS = 500, 5 * 1024 * 1024, 256, 32


class KinesisError(StoreError):
    """A call failed; ``value`` is the code of AWS, None without an answer. ``is_final``: waiting does not help."""

    is_final = False


class Shard(NamedTuple):
    """A shard of the stream; its number is unique in the stream's life, and ``parents`` are the numbers of parents."""

    name: str
    parents: set[int]


class StreamFactsReply(NamedTuple):
    """A stream as AWS describes it: the name of its life, its retention in seconds, and all shards by number."""

    epoch: str
    retention_s: float
    shards: dict[int, Shard]


class KinesisClient:
    """The calls of one stream, which are not repeated; threads may share it.

    Args:
        region: of AWS.
        stream: name of the stream.
        timeout_s: of one call, in seconds.
    """

    def __init__(self, region: str, stream: str, timeout_s: float = 3.0) -> None:
        self._region, self._stream, self._timeout_s = region, stream, timeout_s
        self._client: Any = None

    def call(self, name: str, **body: Any) -> Any:  # noqa: ANN401 - boto3's clients are untyped
        """Return the reply to a call; raises KinesisError."""
        try:
            return getattr(self._open(), name)(**body)
        except ClientError as error:
            raise self._refusal(**error.response["Error"]) from error
        except (NoCredentialsError, CredentialRetrievalError) as error:
            fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of this machine"
            raise self._error("cannot be called without credentials", fix, is_final=True) from error
        except BotoCoreError as error:
            raise self._error(f"did not answer: {error}", "check the region, the endpoint and the network") from error

    def describe(self) -> StreamFactsReply:
        """Return the facts of the stream; raises KinesisError as ``call``."""
        summary = self.call("describe_stream_summary", StreamName=self._stream)["StreamDescriptionSummary"]
        place = blake2b(summary["StreamARN"].encode(), digest_size=4).hexdigest()
        items, more = list[Any](), {"StreamName": self._stream}
        while more:
            page = self.call("list_shards", **more)
            items += page["Shards"]
            more = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        shards = {number_of(item["ShardId"]): _shard_of(item) for item in items}
        epoch = f"{int(summary['StreamCreationTimestamp'].timestamp() * 1e6):x}-{place}"
        return StreamFactsReply(epoch, summary["RetentionPeriodHours"] * 3_600.0, shards)

    def iterator(self, shard: str, after: str) -> str:
        """Return an iterator that begins after a sequence number; empty: with the oldest record."""
        start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        if not after:
            start = {"ShardIteratorType": "TRIM_HORIZON"}
        reply = self.call("get_shard_iterator", StreamName=self._stream, ShardId=shard, **start)
        return str(reply["ShardIterator"])

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open(self) -> Any:  # noqa: ANN401 - boto3's clients are untyped
        if self._client is None:
            times = {"connect_timeout": self._timeout_s, "read_timeout": self._timeout_s}
            options = Config(**times, max_pool_connections=_CONNECTIONS, retries={"total_max_attempts": 1})
            self._client = Session().client("kinesis", region_name=self._region, config=options)
        return self._client

    def _refusal(self, Code: str, Message: str = "", **_: str) -> KinesisError:  # noqa: N803 - as AWS writes them
        problem, fix = f"did not answer: {Code}: {Message}", "look at the status page of AWS; no data was lost"
        if Code == MISSING:
            command = f"aws kinesis create-stream --region {self._region} --stream-name {self._stream}"
            problem, fix = f"does not exist: {Message}", f"correct its name and region, or make it: {command}"
        elif Code in _DENIED:
            problem = f"refuses this caller: {Code}: {Message}"
            fix = "check the credentials, and the rights that docs/kinesis.md lists"
        elif Code in _THROTTLED:
            problem, fix = f"throttles its callers: {Message}", "add shards, or use fewer readers; it is tried again"
        return self._error(problem, fix, Code, is_final=Code in _DENIED)

    def _error(self, problem: str, fix: str, code: str | None = None, *, is_final: bool = False) -> KinesisError:
        error = KinesisError(f"Kinesis stream {self._stream!r} in {self._region}", problem, value=code, fix=fix)
        error.is_final = is_final
        return error


class KinesisSender:
    """Implements ``EventSender``: at least once, and those of a key in order. Some are stored if a call fails.

    A PutRecords may store a part of its records, and says nothing about their order. So a call has one record of each
    key at most, and what it did not store is sent again before the next records of these keys.

    Args:
        region, stream: of AWS.
        timeout_s: how long a send waits until all of its messages are stored, in seconds.
    """

    def __init__(self, region: str, stream: str, timeout_s: float = 30.0) -> None:
        self._stream, self._timeout_s = stream, timeout_s
        self._client = KinesisClient(region, stream, timeout_s)

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages; see ``EventSender``."""
        deadline = time.monotonic() + self._timeout_s
        for batch in _batches([_entry(body, None if keys is None else keys[i]) for i, body in enumerate(payloads)]):
            self._put(batch, deadline)

    def close(self) -> None:
        """Close the connections; see ``EventSender``."""
        self._client.close()

    def _put(self, batch: list[dict[str, Any]], deadline: float) -> None:
        pause_s = 0.05
        while True:
            reply = self._client.call("put_records", StreamName=self._stream, Records=batch)
            failed = [item for item in zip(batch, reply["Records"], strict=True) if item[1].get("ErrorCode")]
            if not failed:
                return
            batch, error = [entry for entry, _ in failed], failed[0][1]
            if time.monotonic() > deadline:
                problem = f"has not stored {len(batch)} messages: {error['ErrorCode']}: {error.get('ErrorMessage')}"
                raise StoreError(f"Kinesis stream {self._stream!r}", problem, fix="add shards, and send them again")
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - not for secrets
            pause_s = min(1.0, 2 * pause_s)


def number_of(shard: str) -> int:
    """Return the number of a shard.

    >>> number_of("shardId-000000000012")
    12
    """
    return int(shard.rpartition("-")[2])


def _shard_of(item: Mapping[str, Any]) -> Shard:
    parents = {number_of(item[link]) for link in ("ParentShardId", "AdjacentParentShardId") if item.get(link)}
    return Shard(item["ShardId"], parents)


def _entry(payload: bytes, key: str | None) -> dict[str, Any]:
    key = secrets.token_hex(8) if key is None else key
    if not 0 < len(key) <= _KEY_CHARS:
        key = blake2b(key.encode(), digest_size=16).hexdigest()
    return {"Data": payload, "PartitionKey": key}


def _batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield entries in parts that one call takes, with at most one of each key, and those of a key in order."""
    while entries:
        batch, later, keys, size = list[dict[str, Any]](), list[dict[str, Any]](), set[str](), 0
        for entry in entries:
            key, n = entry["PartitionKey"], len(entry["Data"]) + len(entry["PartitionKey"].encode())
            is_full = len(batch) == _PER_CALL or (bool(batch) and size + n > _CALL_BYTES)
            if is_full or key in keys:
                later.append(entry)
            else:
                batch.append(entry)
                size += n
            keys.add(key)  # also if it waits: the next ones of its key wait, too
        yield batch
        entries = later
