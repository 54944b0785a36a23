"""The calls of one DynamoDB table: conditional writes, batches and snapshots of items, and errors with their fix."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import LOST, Marker, RowsAndMarkers

Item: TypeAlias = Mapping[str, Any]
_Input, _Output = TypeVar("_Input"), TypeVar("_Output")

ITEM_BYTES = 400 * 1024
EXPIRY = "e"
NO_ITEM = "attribute_not_exists(k)"
ITEMS_PER_CALL = 100
_MOST_MARKERS = 90
_CONNECTIONS = 32
_ATTEMPTS = 6
_THROTTLED = {"ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}
_THROTTLED_ITEMS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
_DENIED = {"AccessDeniedException", "ExpiredTokenException", "InvalidClientTokenId", "InvalidSignatureException"}
_DENIED |= {"MissingAuthenticationTokenException", "UnrecognizedClientException"}
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


def value_of(item: Item | None) -> bytes | None:
    """Return the value of an item; None: there is no item, or it has expired."""
    if item is None or (EXPIRY in item and int(item[EXPIRY]["N"]) <= time.time()):
        return None
    return bytes(item["v"]["B"])


def marker_of(item: Item | None) -> Marker | None:
    """Return the marker of an item, also one that covers no rows."""
    return None if item is None else Marker(int(item["p"]["N"]), int(item["w"]["N"]))


@dataclass(frozen=True, kw_only=True)
class TableAddress:
    """The parts of a URL ``dynamodb://REGION/TABLE?endpoint=URL``; without ``endpoint`` it is that of AWS."""

    region: str
    table: str
    endpoint: str | None

    @classmethod
    def parse(cls, url: str) -> TableAddress:
        """Return the parts of a URL.

        Raises:
            StoreError: the URL has another form, or credentials.
        """
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        table = parts.path.removeprefix("/")
        if not parts.netloc or not table or "/" in table or "@" in parts.netloc or options.keys() - {"endpoint"}:
            fix = "write dynamodb://REGION/TABLE; credentials come from the environment, a profile or a role"
            raise StoreError("setting 'redis_url'", "is not the URL of a DynamoDB table", fix=fix)
        return cls(region=parts.netloc, table=table, endpoint=options.get("endpoint", [None])[0])


class DynamoTable:
    """A table whose items have a binary key ``k``; threads may share it, and a process that was forked opens its own.

    Args:
        url: ``dynamodb://REGION/TABLE``.
        timeout_s: the timeout of one attempt in seconds.

    Raises:
        StoreError: the URL has another form.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.address = TableAddress.parse(url)
        self._timeout_s = timeout_s
        self._pid = 0
        self._client: Any = None
        self._threads: ThreadPoolExecutor

    def check(self) -> None:
        """Raise StoreError if the table is missing or has another key."""
        with self.translated():
            table = self._call("describe_table")["Table"]
        key = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
        if key.get("k") != "B" or [each["AttributeName"] for each in table["KeySchema"]] != ["k"]:
            raise self.failure("has another key than a binary 'k'", f"make another table: {self._create_command()}")

    def clock_offset_us(self) -> int:
        """Return how far the clock of DynamoDB, which tells whole seconds, is surely from this machine's."""
        with self.translated():
            headers = self._call("describe_table")["ResponseMetadata"]["HTTPHeaders"]
        now = time.time_ns() // 1_000
        second = int(parsedate_to_datetime(headers["date"]).timestamp()) * 1_000_000
        return min(0, second + 1_000_000 - now) if now > second else second - now

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
            view = bytes(item["k"]["B"])[1:].partition(b"{")[0].decode(errors="replace")
            problem = f"has a value of {size:,} bytes for {view!r}, and an item has at most {ITEM_BYTES:,}"
            fix = "shorten the windows or make their hops longer, or keep this project in Redis"
            raise self.failure(problem, fix)
        return self._is_done("put_item", {"Item": item}, condition, values)

    def remove(self, key: bytes, condition: str = "", values: Item | None = None) -> bool:
        """Delete an item, if there is one and the rest of its condition holds; return whether it did."""
        return self._is_done("delete_item", {"Key": {"k": {"B": key}}}, f"attribute_exists(k){condition}", values)

    def transact(self, actions: Sequence[Item]) -> list[str]:
        """Do all writes at once, or none; return for each what prevented it, ``None`` for nothing; [] if all are done.

        An action is ``{"Put": {...}}``, for example, without the name of the table.
        """
        with_table = [
            {kind: {"TableName": self.address.table, **body} for kind, body in each.items()} for each in actions
        ]
        with self.translated():
            try:
                self._open().transact_write_items(TransactItems=with_table)
            except ClientError as error:
                return _cancellation(error)
        return []

    def items(self, keys: Sequence[bytes]) -> dict[bytes, Item]:
        """Return the items of keys that exist, each as of its own moment, which is after this call began."""
        distinct = list(dict.fromkeys(keys))
        chunks = [distinct[i : i + ITEMS_PER_CALL] for i in range(0, len(distinct), ITEMS_PER_CALL)]
        found: dict[bytes, Item] = {}
        for some in self.each(self._batch, chunks) if len(chunks) > 1 else map(self._batch, chunks):
            found |= some
        return found

    def snapshot(self, keys: Sequence[bytes]) -> dict[bytes, Item]:
        """Return the items of at most 100 keys that exist, as of one moment.

        Raises:
            StoreError: the call failed.
        """
        gets = [{"Get": {"TableName": self.address.table, "Key": {"k": {"B": key}}}} for key in keys]
        with self.translated():
            for pause_s in pauses_s():
                try:
                    replies = self._open().transact_get_items(TransactItems=gets)["Responses"]
                except ClientError as error:
                    if set(_cancellation(error)) - _THROTTLED_ITEMS - {"None"}:
                        raise
                    time.sleep(pause_s)
                    continue
                return {reply["Item"]["k"]["B"]: reply["Item"] for reply in replies if "Item" in reply}
        raise self.busy_error()

    def read(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return values and markers; the values of a call and all markers are of one moment.

        If more than one call is needed, the result has the oldest of each marker, which holds for all values.

        Raises:
            StoreError: there are too many markers, or a call failed.
        """
        places, marks = [value_key(key) for key in keys], [marker_key(name) for name in names]
        if not marks:
            items = self.items(places)
            return [value_of(items.get(place)) for place in places], []
        if len(marks) > _MOST_MARKERS:
            problem = f"has {len(marks)} markers to read at one moment, and at most {_MOST_MARKERS} are possible"
            raise self.failure(problem, "use fewer windowed views in a service, or fewer partitions")
        distinct, size = list(dict.fromkeys(places)), ITEMS_PER_CALL - len(set(marks))
        chunks = [distinct[i : i + size] for i in range(0, max(1, len(distinct)), size)]
        wanted = list(dict.fromkeys(marks))
        many = self.each if len(chunks) > 1 else map
        replies = list(many(lambda chunk: self._halved(chunk, wanted), chunks))
        values = {
            place: value_of(item)
            for reply in replies
            for found in reply
            for place, item in found.items()
            if place[:1] == b"k"
        }
        stands = {
            mark: _oldest([marker_of(found.get(mark)) for reply in replies for found in reply]) for mark in wanted
        }
        return [values.get(place) for place in places], [stands[mark] for mark in marks]

    def scan(self) -> Iterator[list[bytes]]:
        """Yield the keys of all items, in pages. Reads the complete table."""
        start: dict[str, Any] = {}
        while True:
            with self.translated():
                page = self._call("scan", ProjectionExpression="k", ConsistentRead=True, **start)
            yield [bytes(item["k"]["B"]) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def failure(self, problem: str, fix: str) -> StoreError:
        """Return an error of this table."""
        return StoreError(f"DynamoDB table {self.address.table!r} in {self.address.region}", problem, fix=fix)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise StoreError instead of the client's errors."""
        try:
            yield
        except ClientError as error:
            raise self._refusal(error.response["Error"]) from error
        except (NoCredentialsError, CredentialRetrievalError) as error:
            fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of this machine"
            raise self.failure("has no credentials to be called with", fix) from error
        except BotoCoreError as error:
            raise self.failure(f"did not answer: {error}", "check the region, the endpoint and the network") from error

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        if self._client is not None and self._pid == os.getpid():
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._client.close()
        self._client = None

    def _open(self) -> Any:  # noqa: ANN401 - boto3's clients are untyped
        if self._client is None or self._pid != os.getpid():
            # Connections and threads of a parent stay with it.
            options = Config(
                connect_timeout=self._timeout_s,
                read_timeout=self._timeout_s,
                max_pool_connections=_CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            )
            address = self.address
            with self.translated():
                client = Session().client(
                    "dynamodb", region_name=address.region, endpoint_url=address.endpoint, config=options
                )
            self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="dynamodb")
            self._client, self._pid = client, os.getpid()
        return self._client

    def _call(self, name: str, **body: Any) -> Any:  # noqa: ANN401 - boto3's clients are untyped
        return getattr(self._open(), name)(TableName=self.address.table, **body)

    def _is_done(self, call: str, body: dict[str, Any], condition: str | None, values: Item | None) -> bool:
        if condition is not None:
            body["ConditionExpression"] = condition
        if values is not None:
            body["ExpressionAttributeValues"] = values
        with self.translated():
            try:
                self._call(call, **body)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                return False
        return True

    def _batch(self, keys: Sequence[bytes]) -> dict[bytes, Item]:
        """Return the items of at most 100 keys; those that a reply leaves out are asked for again."""
        table, found = self.address.table, dict[bytes, Item]()
        left = {"Keys": [{"k": {"B": key}} for key in keys], "ConsistentRead": True}
        pauses = pauses_s()
        with self.translated():
            while left:
                reply = self._open().batch_get_item(RequestItems={table: left})
                items = reply["Responses"].get(table, [])
                found |= {item["k"]["B"]: item for item in items}
                left = reply.get("UnprocessedKeys", {}).get(table)
                if items:
                    pauses = pauses_s()
                elif left:
                    pause_s = next(pauses, None)
                    if pause_s is None:
                        raise self.busy_error()
                    time.sleep(pause_s)
        return found

    def _halved(self, keys: Sequence[bytes], marks: Sequence[bytes]) -> list[dict[bytes, Item]]:
        """Return snapshots that together have all items: halves, if one would be larger than DynamoDB's 4 MB."""
        try:
            return [self.snapshot([*keys, *marks])]
        except StoreError as error:
            cause = error.__cause__
            code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
            if code != "ValidationException" or len(keys) < 2:  # noqa: PLR2004 - nothing to halve
                raise
        middle = len(keys) // 2
        return [*self._halved(keys[:middle], marks), *self._halved(keys[middle:], marks)]

    def _refusal(self, error: Mapping[str, str]) -> StoreError:
        code, text = error["Code"], error.get("Message", "")
        if code == "ResourceNotFoundException":
            return self.failure("does not exist", f"make it: {self._create_command()}")
        if code in _DENIED:
            return self.failure(
                f"refuses this caller: {code}: {text}", "check the credentials, and the rights of docs/online-stores.md"
            )
        if code in _THROTTLED:
            return self.busy_error()
        return self.failure(f"did not answer: {code}: {text}", "run again, or see the status page of AWS")

    def busy_error(self) -> StoreError:
        """Return the error of a table that refuses call after call."""
        fix = "raise the capacity of the table, set it to on demand, or run again later"
        return self.failure(f"throttles: {_ATTEMPTS} attempts were refused", fix)

    def _create_command(self) -> str:
        return _CREATE.format(region=self.address.region, table=self.address.table)


def pauses_s() -> Iterator[float]:
    """Yield the pauses between attempts, in seconds, longer each time."""
    return (min(1.0, 0.02 * 2**attempt) * random.uniform(0.5, 1.0) for attempt in range(2 * _ATTEMPTS))  # noqa: S311


def _cancellation(error: ClientError) -> list[str]:
    """Return what prevented each action of a transaction; raise any other error again."""
    if error.response["Error"]["Code"] != "TransactionCanceledException":
        raise error
    return [reason.get("Code", "None") for reason in error.response["CancellationReasons"]]


def _oldest(marks: Sequence[Marker | None]) -> Marker | None:
    """Return the marker that holds in all snapshots; None: in one of them no rows are covered."""
    known = [mark for mark in marks if mark is not None and mark.position > LOST]
    if len(known) < len(marks):
        return None
    return Marker(min(mark.position for mark in known), min(mark.watermark_us for mark in known))
