"""The calls of one DynamoDB table: conditional writes, batches and snapshots of items, and errors with their fix."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import LOST, Marker, RowsAndMarkers

Item: TypeAlias = Mapping[str, Any]
Items: TypeAlias = dict[bytes, Item]
_Input = TypeVar("_Input")
_Output = TypeVar("_Output")

ITEMS_PER_CALL = 100
ITEM_BYTES = 400 * 1024
NO_ITEM = "attribute_not_exists(k)"
_MOST_MARKERS = 90
_CONNECTIONS = 32
_ATTEMPTS = 6
_BUSY_S = 10.0
_THROTTLED = {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}
_RETRIED = {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
_DENIED = {"AccessDeniedException", "ExpiredTokenException", "InvalidClientTokenId", "InvalidSignatureException"}
_DENIED |= {"403", "MissingAuthenticationTokenException", "UnrecognizedClientException"}
_CREATE = (
    "aws dynamodb create-table --region {region} --table-name {table} --billing-mode PAY_PER_REQUEST"
    " --attribute-definitions AttributeName=k,AttributeType=B --key-schema AttributeName=k,KeyType=HASH"
)


def value_key(key: bytes) -> bytes:
    """Return the key of a value's item, which is never empty."""
    return b"k" + key


def marker_key(name: str) -> bytes:
    """Return the key of a marker's item."""
    return b"m" + name.encode()


def marker_of(item: Item | None) -> Marker | None:
    """Return the marker of an item, also one that covers no rows."""
    return None if item is None else Marker(int(item["p"]["N"]), int(item["w"]["N"]))


class DynamoTable:
    """A table whose items have a binary key ``k``; threads may share it, and a process that was forked opens its own.

    Args:
        url: ``dynamodb://REGION/TABLE``, perhaps with ``?endpoint=URL`` of a server that is not of AWS.
        timeout_s: the timeout of one attempt in seconds.

    Raises:
        StoreError: the URL has another form.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        self._region, self._name, self._timeout_s = parts.netloc, parts.path[1:], timeout_s
        if not self._region or not self._name or {"/", "@"} & {*self._name, *self._region} or {*options} - {"endpoint"}:
            fix = "write dynamodb://REGION/TABLE; credentials come from the environment, a profile or a role"
            raise StoreError("setting 'redis_url'", "is not the URL of a DynamoDB table", fix=fix)
        self._endpoint = options.get("endpoint", [None])[0]
        self._opening, self._pid = threading.Lock(), 0
        self._client: Any = None
        self._threads: ThreadPoolExecutor

    def check(self) -> None:
        """Raise StoreError if the table is missing or has another key."""
        table = self._call("describe_table")["Table"]
        key = [(each["AttributeName"], each["KeyType"]) for each in table["KeySchema"]]
        if key != [("k", "HASH")] or {"AttributeName": "k", "AttributeType": "B"} not in table["AttributeDefinitions"]:
            raise self.failure("has another key than a binary 'k'", f"make another table: {self._create_command()}")

    def clock_offset_us(self) -> int:
        """Return how far DynamoDB's clock, which tells whole seconds, is at least from this machine's."""
        headers = self._call("describe_table")["ResponseMetadata"]["HTTPHeaders"]
        now_us = time.time_ns() // 1_000
        second_us = int(parsedate_to_datetime(headers["date"]).timestamp()) * 1_000_000
        return second_us - now_us if now_us < second_us else min(0, second_us + 1_000_000 - now_us)

    def each(self, work: Callable[[_Input], _Output], inputs: Iterable[_Input]) -> list[_Output]:
        """Return the result for each input, in order; many calls run at once."""
        self._open()
        return list(self._threads.map(work, inputs))

    def write(self, item: Item, condition: str | None = None, values: Item | None = None) -> bool:
        """Put an item if its condition holds; return whether it did.

        Raises:
            StoreError: the item is too large, or the call failed.
        """
        size = sum(len(name) + len(next(iter(value.values()))) for name, value in item.items())
        if size > ITEM_BYTES:
            name = item["k"]["B"][1:].partition(b"{")[0].decode(errors="replace")
            problem = f"has no room for a value of {size:,} bytes of {name!r}: an item has at most {ITEM_BYTES:,}"
            raise self.failure(problem, "shorten its windows, or keep this project in Redis")
        return self._is_done("put_item", {"Item": item}, condition, values)

    def remove(self, key: bytes, condition: str = "attribute_exists(k)", values: Item | None = None) -> bool:
        """Delete an item if its condition holds; return whether it did."""
        return self._is_done("delete_item", {"Key": {"k": {"B": key}}}, condition, values)

    def transact(self, actions: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Do all writes at once, or none; return what prevented each, as a code; [] if they are done."""
        items = [{kind: {"TableName": self._name, **body}} for kind, body in actions]
        with self._translated():
            try:
                self._open().transact_write_items(TransactItems=items)
            except ClientError as error:
                return _cancellation(error)
        return []

    def items(self, keys: Sequence[bytes]) -> Items:
        """Return the items that exist, each as of its own moment, which is after this call began."""
        return {
            place: item for some in self._chunked(self._batch, keys, ITEMS_PER_CALL) for place, item in some.items()
        }

    def snapshot(self, keys: Sequence[bytes]) -> Items:
        """Return the items that exist of at most 100 keys, as of one moment."""
        gets = [{"Get": {"TableName": self._name, "Key": {"k": {"B": key}}}} for key in keys]
        with self._translated():
            for _ in self.attempts():
                try:
                    replies = self._open().transact_get_items(TransactItems=gets)["Responses"]
                except ClientError as error:
                    if set(_cancellation(error)) - _RETRIED:
                        raise
                else:
                    return {reply["Item"]["k"]["B"]: reply["Item"] for reply in replies if "Item" in reply}
        raise AssertionError  # attempts end with an error

    def read(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return values and markers; if more than one call is needed, each marker holds for the values of all calls."""
        places, marks = [value_key(key) for key in keys], [marker_key(name) for name in names]
        if len(marks) > _MOST_MARKERS:
            problem = f"has {len(marks)} markers to read at one moment, and at most {_MOST_MARKERS} are possible"
            raise self.failure(problem, "use fewer windowed views in a service, or fewer partitions")
        if not marks:
            replies = [self.items(places)]
        else:
            size = ITEMS_PER_CALL - len(marks)
            replies = [
                each for some in self._chunked(lambda chunk: self._halved(chunk, marks), places, size) for each in some
            ]
        found = {place: item for reply in replies for place, item in reply.items()}
        values = [_value_of(found.get(place)) for place in places]
        return values, [oldest([marker_of(reply.get(mark)) for reply in replies]) for mark in marks]

    def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``."""
        expiry = {"N": str(int(time.time()) + seconds)}
        self.each(self.write, [{"k": {"B": value_key(key)}, "v": {"B": b"1"}, "e": expiry} for key in keys])

    def scan(self) -> Iterator[list[bytes]]:
        """Yield the keys of all items, in pages. Reads the complete table."""
        start: dict[str, Any] = {}
        while True:
            page = self._call("scan", ProjectionExpression="k", ConsistentRead=True, **start)
            yield [item["k"]["B"] for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def attempts(self) -> Iterator[None]:
        """Yield for each attempt, with pauses between them; raise StoreError after some seconds."""
        deadline, pause_s = time.monotonic() + _BUSY_S, 0.02
        while time.monotonic() < deadline:
            yield
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - not for secrets
            pause_s = min(1.0, 2 * pause_s)
        raise self._busy_error()

    def failure(self, problem: str, fix: str) -> StoreError:
        """Return an error of this table."""
        return StoreError(f"DynamoDB table {self._name!r} in {self._region}", problem, fix=fix)

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        if self._client is not None and self._pid == os.getpid():
            self._threads.shutdown(cancel_futures=True)
            self._client.close()
        self._client = None

    def _open(self) -> Any:  # noqa: ANN401 - boto3's clients are untyped
        with self._opening, self._translated():
            if self._client is None or self._pid != os.getpid():  # connections and threads of a parent stay with it
                options = Config(
                    connect_timeout=self._timeout_s,
                    read_timeout=self._timeout_s,
                    max_pool_connections=_CONNECTIONS,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                )
                place = {"region_name": self._region, "endpoint_url": self._endpoint}
                self._client = Session().client("dynamodb", config=options, **place)
                self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="dynamodb")
                self._pid = os.getpid()
            return self._client

    def _call(self, name: str, **body: Any) -> Any:  # noqa: ANN401 - boto3's clients are untyped
        with self._translated():
            return getattr(self._open(), name)(TableName=self._name, **body)

    def _is_done(self, call: str, body: dict[str, Any], condition: str | None, values: Item | None) -> bool:
        conditions = {"ConditionExpression": condition, "ExpressionAttributeValues": values}
        try:
            self._call(call, **body, **{name: each for name, each in conditions.items() if each is not None})
        except StoreError as error:
            if _code_of(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _chunked(self, read: Callable[[Sequence[bytes]], _Output], keys: Sequence[bytes], size: int) -> list[_Output]:
        distinct = list(dict.fromkeys(keys))
        chunks = [distinct[i : i + size] for i in range(0, max(1, len(distinct)), size)]
        return self.each(read, chunks) if len(chunks) > 1 else [read(chunks[0])]

    def _batch(self, keys: Sequence[bytes]) -> Items:
        """Return the items of at most 100 keys; a reply may leave some out, which are asked for again."""
        found: Items = {}
        left: Any = {"Keys": [{"k": {"B": key}} for key in keys], "ConsistentRead": True} if keys else None
        attempts = self.attempts()
        while left:
            next(attempts)
            with self._translated():
                reply = self._open().batch_get_item(RequestItems={self._name: left})
            items = reply["Responses"].get(self._name, [])
            found |= {item["k"]["B"]: item for item in items}
            left = reply.get("UnprocessedKeys", {}).get(self._name)
            if items:
                attempts = self.attempts()
        return found

    def _halved(self, keys: Sequence[bytes], marks: Sequence[bytes]) -> list[Items]:
        """Return snapshots that together have all items: halves, if one would be larger than DynamoDB's 4 MB."""
        try:
            return [self.snapshot([*keys, *dict.fromkeys(marks)])]
        except StoreError as error:
            if _code_of(error) != "ValidationException" or len(keys) <= 1:
                raise
        middle = len(keys) // 2
        return [*self._halved(keys[:middle], marks), *self._halved(keys[middle:], marks)]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise StoreError instead of the client's errors."""
        try:
            yield
        except ClientError as error:
            raise self._refusal(**error.response["Error"]) from error
        except (NoCredentialsError, CredentialRetrievalError) as error:
            fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of this machine"
            raise self.failure("cannot be called without credentials", fix) from error
        except BotoCoreError as error:
            raise self.failure(f"did not answer: {error}", "check the region, the endpoint and the network") from error

    def _refusal(self, Code: str, Message: str = "", **_: str) -> StoreError:  # noqa: N803 - as AWS writes them
        if Code == "ResourceNotFoundException":
            return self.failure("does not exist", f"make it: {self._create_command()}")
        if Code in _DENIED:
            fix = "check the credentials, and the rights that docs/online-stores.md lists"
            return self.failure(f"refuses this caller: {Code}: {Message}", fix)
        if Code in _THROTTLED:
            return self._busy_error()
        return self.failure(f"did not answer: {Code}: {Message}", "run again; look at the status page of AWS")

    def _busy_error(self) -> StoreError:
        return self.failure("throttles its callers", "raise its capacity, or set it to on demand; then run again")

    def _create_command(self) -> str:
        return _CREATE.format(region=self._region, table=self._name)


def _cancellation(error: ClientError) -> list[str]:
    """Return what prevented each action of a transaction; raise any other error again."""
    if error.response["Error"]["Code"] != "TransactionCanceledException":
        raise error
    return [reason.get("Code", "None") for reason in error.response["CancellationReasons"]]


def _code_of(error: StoreError) -> str:
    """Return AWS's code of an error; empty: it has none."""
    return error.__cause__.response["Error"]["Code"] if isinstance(error.__cause__, ClientError) else ""


def _value_of(item: Item | None) -> bytes | None:
    """Return the value of an item; None: there is no item, or it has expired."""
    return None if item is None or int(item.get("e", {"N": 1 << 62})["N"]) <= time.time() else item["v"]["B"]


def oldest(marks: Sequence[Marker | None]) -> Marker | None:
    """Return the marker that holds in all snapshots; None: in one of them no rows are covered."""
    known = [mark for mark in marks if mark is not None and mark.position > LOST]
    if len(known) < len(marks):
        return None
    return Marker(min(mark.position for mark in known), min(mark.watermark_us for mark in known))
