"""The storage of immutable objects in a cloud, with local copies."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import obstore
import obstore.exceptions
import obstore.store

from skewless.contract.clock import to_us
from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.platform.storage.durable import remove_at_end, translate_disk_errors
from skewless.infra.platform.storage.objects import (
    ListedObject,
    ObjectStorage,
    StoredObject,
    corrupt_error,
    digest_bytes,
    digest_chunks,
    digest_file,
    missing_error,
)
from skewless_cloud.file_cache import FileCache

_SETTING = "setting 'storage_url'"
# Credentials are none of the options: an address is shown and logged.
_OPTIONS = {"s3": ("endpoint", "region"), "gs": ("endpoint",), "az": ("endpoint", "account")}
# The classes of obstore, and their names of our options.
_STORES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "s3": ("S3Store", {}),
    "gs": ("GCSStore", {"endpoint": "base_url"}),
    "az": ("AzureStore", {"account": "account_name"}),
}
_HTTP = "http://"


class StorageAddress(NamedTuple):
    """Where objects are stored in a cloud.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        bucket: its name; a container of Azure is one, too.
        prefix: begins the names of all objects, without a ``/`` at its ends; may be empty.
        options: ``endpoint``, ``region`` and ``account``, if the address has them.
    """

    scheme: str
    bucket: str
    prefix: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        """Return the address without its options."""
        return f"{self.scheme}://{self.bucket}{'/' if self.prefix else ''}{self.prefix}"


def parse_address(url: str) -> StorageAddress:
    """Return the address that a URL names.

    >>> str(parse_address("s3://features/shop/?region=eu-west-1"))
    's3://features/shop'

    Raises:
        DefinitionError: the URL is of another kind, or contains credentials or an unknown option.
    """
    parts = urlsplit(url)
    if parts.scheme not in _OPTIONS or not parts.netloc:
        fix = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
        raise DefinitionError(_SETTING, "is not an address we know", value=url.partition(":")[0], fix=fix)
    if "@" in parts.netloc:
        fix = "put them into the environment, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise DefinitionError(_SETTING, "contains credentials", fix=fix)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _OPTIONS[parts.scheme]
    if unknown := sorted(options.keys() - known):
        fix = f"write {' or '.join(known)}; credentials belong into the environment"
        raise DefinitionError(_SETTING, "has an unknown option", value=unknown[0], fix=fix)
    if not options.get("endpoint", _HTTP).startswith((_HTTP, "https://")):
        raise DefinitionError(_SETTING, "has an endpoint without a scheme", fix="write endpoint=https://HOST:PORT")
    return StorageAddress(parts.scheme, parts.netloc, parts.path.strip("/"), options)


# A storage that does not answer is an error after 40 s. A download may take longer, as long as bytes arrive.
_TIMEOUTS = {"connect_timeout": "3s", "read_timeout": "20s", "timeout": "1h"}
_RETRIES = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_UPLOADS = 4  # parts of 5 MiB at the same time: on a slow line, more of them would exceed the read timeout
_DOWNLOADS = 8  # at the same time
_CHUNK_BYTES = 4 << 20  # of a download
_LOCKS = 64
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3}(?: [A-Za-z]+)*)")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
# Where a cloud's machine gets credentials; the library asks there if the environment has none.
_MACHINE = re.compile(r"169\.254\.169\.254|latest/api/token|metadata\.google\.internal")


def open_storage(url: str, root: Path, cache_bytes: int) -> CloudStorage:
    """Return the storage at an address, see ``OpenStorage`` of the core.

    Raises:
        DefinitionError: the address is invalid.
        StoreError: the environment lacks something that the storage needs.
    """
    return CloudStorage(parse_address(url), root, cache_bytes)


class CloudStorage(ObjectStorage):
    """Objects in a bucket of S3, Google Cloud Storage or Azure; credentials are read from the environment.

    Args:
        address: of the storage.
        root: folder of this machine for copies and unfinished files.
        cache_bytes: limit of the copies.

    Raises:
        StoreError: the environment lacks something that the storage needs.
    """

    def __init__(self, address: StorageAddress, root: Path, cache_bytes: int) -> None:
        super().__init__(root)
        self._address = address
        self._cache = FileCache(root / "cache", cache_bytes)
        with self._translate_errors():
            self._store = _open_store(address)
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def put(self, name: str, data: bytes | memoryview) -> StoredObject:
        """Upload the bytes, and write a local copy."""
        view = memoryview(data).cast("B")
        stored = StoredObject(name, view.nbytes, self._upload(name, view), digest_bytes(view))
        with self._cache.add(stored) as copy:
            copy.write_bytes(view)
        return stored

    def put_file(self, name: str, path: Path) -> StoredObject:
        """Upload a file in parts, and link it as the local copy."""
        try:
            size, digest = path.stat().st_size, digest_file(path)
        except OSError as error:
            raise corrupt_error(path, error.strerror) from error
        stored = StoredObject(name, size, self._upload(name, path), digest)
        with self._cache.add(stored) as copy:
            try:
                copy.hardlink_to(path)
            except OSError:  # on another disk
                shutil.copyfile(path, copy)
        return stored

    def describe(self, name: str) -> StoredObject:
        """Download the object into the copies, and return it with its current tag."""
        with self._translate_errors(name):
            head = obstore.head(self._store, name)
        with remove_at_end(self.staging_path()) as path, translate_disk_errors(path):
            self._fetch(name, path)
            stored = StoredObject(name, path.stat().st_size, str(head["e_tag"] or ""), digest_file(path))
            with self._cache.add(stored) as copy:
                path.replace(copy)
        return stored

    def local_path(self, stored: StoredObject) -> Path:
        """Return a local copy, downloaded at the first use; a copy is enough if the storage is unreachable."""
        if path := self._cache.find(stored):
            return path
        # Threads that want the same object wait for one download.
        with self._locks[hash(stored.digest) % _LOCKS]:
            return self._cache.find(stored) or self._download(stored)

    def local_paths(self, objects: Sequence[StoredObject]) -> list[Path]:
        """Return a local file for each object; several are downloaded at the same time."""
        missing = [stored for stored in objects if not self._cache.find(stored)]
        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            list(pool.map(self.local_path, missing))
        return [self.local_path(stored) for stored in objects]

    def verify(self, stored: StoredObject) -> None:
        """Download the object and compare its digest."""
        if digest_chunks(self._read_chunks(stored.name)) != stored.digest:
            raise self._altered_error(stored)

    def delete(self, names: Iterable[str]) -> None:
        """Delete the objects; copies remain until they are evicted."""
        names = list(names)
        with self._translate_errors():
            try:
                obstore.delete(self._store, names)
            except FileNotFoundError:  # not every storage accepts a missing one
                for name in names:
                    with suppress(FileNotFoundError):
                        obstore.delete(self._store, name)

    def delete_copy(self, stored: StoredObject) -> None:
        """Delete the local copy."""
        self._cache.delete(stored)

    def delete_unknown_copies(self, list_digests: Callable[[], Collection[str]], *, dry_run: bool = False) -> int:
        """Delete local copies of other objects, unless they were used in the last hour."""
        return self._cache.delete_others(list_digests, dry_run=dry_run)

    def list_objects(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects below a folder."""
        with self._translate_errors():
            for batch in obstore.list(self._store, prefix):
                for item in batch:
                    yield ListedObject(item["path"], item["size"], to_us(item["last_modified"]))

    def _upload(self, name: str, content: memoryview | Path) -> str:
        """Store an object; return the storage's tag of its content."""
        with self._translate_errors(name):
            result = obstore.put(self._store, name, content, max_concurrency=_UPLOADS)
        return str(result["e_tag"] or "")

    def _download(self, stored: StoredObject) -> Path:
        with self._cache.add(stored) as copy:
            self._fetch(stored.name, copy)
            if (copy.stat().st_size, digest_file(copy)) != (stored.size, stored.digest):
                raise self._altered_error(stored)
        return self._cache.path(stored)

    def _fetch(self, name: str, path: Path) -> None:
        with path.open("xb") as file:
            file.writelines(self._read_chunks(name))

    def _read_chunks(self, name: str) -> Iterator[memoryview]:
        with self._translate_errors(name):
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=_CHUNK_BYTES):
                yield memoryview(chunk)

    def _altered_error(self, stored: StoredObject) -> StoreError:
        return corrupt_error(f"{self._address}/{stored.name}", "its content has changed since it was written")

    @contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            text = str(error)
            code = _CODE.search(text)
            if isinstance(error, FileNotFoundError) and not (code and code[1] in _NO_BUCKET):
                raise missing_error(f"{self._address}/{name}") from error
            raise StoreError(
                f"object storage {self._address}",
                f"cannot be used: {_describe(text)}{f' ({code[1]})' if code else ''}",
                fix=_suggest_fix(text),
            ) from error


def _describe(text: str) -> str:
    """Return the reason in a message of the library, without the answer of the server, which may repeat a key."""
    if _MACHINE.search(text):
        return "the environment has no credentials"
    if status := _STATUS.search(text):
        return f"it answers {status[1]}"
    reason = text.partition("\n")[0].rpartition(" - ")[2]
    return "it does not answer" if "error sending request" in reason else reason


def _suggest_fix(text: str) -> str:
    if _MACHINE.search(text) or " 401 " in text or " 403 " in text:
        return "set credentials in the environment that may read, write, list and delete objects; see docs/storage.md"
    if "builder error" in text:
        return "name the endpoint in storage_url: endpoint=https://HOST:PORT, or http:// for a storage without TLS"
    if any(code in text for code in _NO_BUCKET):
        return "create the bucket, or correct storage_url"
    return "check storage_url and the network, then run again"


def _open_store(address: StorageAddress) -> Any:  # noqa: ANN401 - a store of obstore
    client = _TIMEOUTS | {"allow_http": address.options.get("endpoint", "").startswith(_HTTP)}
    options = {"prefix": address.prefix or None, "client_options": client, "retry_config": _RETRIES}
    store, renamed = _STORES[address.scheme]
    config: dict[str, Any] = {renamed.get(name, name): value for name, value in address.options.items()}
    if address.scheme == "s3" and "endpoint" in config:
        config["virtual_hosted_style_request"] = False
    return getattr(obstore.store, store)(address.bucket, config=config, **options)
