"""Reads and registers schemas with confluent-kafka's client of a schema registry, in bounded time and memory.

A schema never changes under its id, so a reader of events keeps what it has compiled. Protobuf schemas are exchanged as
serialized descriptors (``format=serialized``, which says nothing for others), so that no ``.proto`` text is parsed.
https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import httpx2
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, Schema, SchemaReference
from confluent_kafka.schema_registry.error import SchemaRegistryError

from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.loopback import is_loopback
from skewless.contract.settings import Settings
from skewless.infra.platform.formats.codec import PayloadError

SchemaKind = Literal["AVRO", "JSON", "PROTOBUF"]
_KINDS = frozenset({"AVRO", "JSON", "PROTOBUF"})
_MAX_BYTES = 1_048_576  # of a reply; larger schemas are not usable
_TIMEOUT_S = 10.0  # of one request with its reply
_MOST_REFERENCES, _MOST_DEPTH = 100, 8
_NOT_FOUND, _INVALID = 404, frozenset({409, 422})
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class RegisteredSchema:
    """A schema of the registry.

    Args:
        id: in the registry.
        kind: its language; only ``AVRO``, ``PROTOBUF`` and ``JSON`` can be read.
        text: JSON of an Avro or JSON schema; base64 of a serialized FileDescriptorProto.
        references: the schemas that it imports, by the name in the import, with theirs first.
    """

    id: int
    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


class SchemaRegistry:
    """Reads and registers schemas; any thread may use it.

    Args:
        url: of the registry, as in the setting ``schema_registry``: https, or http to this machine, with user and
            password if it wants them.
        timeout_s: of one request.

    Raises:
        DefinitionError: it is not such a URL.
    """

    def __init__(self, url: str, timeout_s: float = _TIMEOUT_S) -> None:
        _check_url(url)
        self._url, self._timeout_s = url, timeout_s

    def schema(self, schema_id: int) -> RegisteredSchema | None:
        """Return a schema by its id; None: the registry does not have it.

        Raises:
            StoreError: the registry is unavailable, or its reply is wrong.
            PayloadError: its references end nowhere, are too many, or one of them is missing.
        """

        async def read(client: _Client) -> RegisteredSchema:
            return await self._follow(client, schema_id, await client.get_schema(schema_id, fmt="serialized"))

        return self._run(read)

    def latest(self, subject: str) -> RegisteredSchema | None:
        """Return the latest schema of a subject; None: it has none.

        Raises:
            StoreError: the registry is unavailable, or its reply is wrong.
            PayloadError: its references end nowhere, are too many, or one of them is missing.
        """

        async def read(client: _Client) -> RegisteredSchema:
            found = await client.get_latest_version(subject, fmt="serialized")
            return await self._follow(client, found.schema_id, found.schema)

        return self._run(read)

    def register(self, subject: str, kind: SchemaKind, text: str) -> int:
        """Register a schema in a subject, unless it is there already; return its id.

        Raises:
            StoreError: the registry is unavailable.
            DefinitionError: the registry refuses it, for example because the subject's schemas are not compatible.
        """

        async def register(client: _Client) -> int:
            try:
                schema_id = await client.register_schema(subject, Schema(text, kind))
            except SchemaRegistryError as error:
                if error.http_status_code not in _INVALID:
                    raise
                raise DefinitionError(
                    f"subject {subject!r} of the schema registry",
                    f"does not accept the schema of decisions: {str(error.error_message)[:300]}",
                    fix="use another subject, or correct its compatibility in the registry",
                ) from None
            return self._check_id(schema_id)

        registered = self._run(register)
        if registered is None:
            raise self._error(f"answered with status {_NOT_FOUND} to a registration")
        return registered

    def _run(self, use: Callable[[_Client], Awaitable[_T]]) -> _T | None:
        """Return the result of some requests; None: the registry does not have what they ask for."""

        async def run() -> _T:
            async with _Client(self._url, self._timeout_s, self._error) as client:
                return await use(client)

        try:
            return asyncio.run(run())
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return None
            raise self._error(f"answered with status {error.http_status_code}") from None
        except TimeoutError:
            raise self._error(f"did not answer in {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, OSError) as error:
            raise self._error(f"cannot be reached: {type(error).__name__}") from None
        except PayloadError:
            raise
        except (ValueError, TypeError, AttributeError):  # of the client, for JSON that is none, or of another form
            raise self._error("answered with something that is not a schema") from None

    async def _follow(self, client: _Client, schema_id: object, schema: Schema) -> RegisteredSchema:
        """Return a schema with those that it references."""
        found = self._check_id(schema_id)
        if not isinstance(schema.schema_str, str):
            raise self._error("answered with something that is not a schema")
        texts: dict[tuple[str, str, int], str | None] = {}
        # A schema that cannot be read must not let the events of others wait.
        await _read_references(client, f"schema {found}", schema, texts)
        return RegisteredSchema(
            id=found,
            kind=schema.schema_type if schema.schema_type in _KINDS else "of an unknown kind",
            text=schema.schema_str,
            references=tuple((name, text or "") for (name, _, _), text in texts.items()),
        )

    def _check_id(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
            raise self._error("answered with something that is not the id of a schema")
        return value

    def _error(self, problem: str) -> StoreError:
        host = urlsplit(self._url).hostname
        return StoreError(f"schema registry at {host!r}", problem, fix="start it, or correct 'schema_registry'")


class _Client(AsyncSchemaRegistryClient):
    """The client for one read or registration: no retries, which a worker makes, no redirects and no proxies.

    The client has no option for these bounds, so its session is another one: a private part, named by
    ``plugins/formats/tests/test_registry.py``.
    """

    def __init__(self, url: str, timeout_s: float, refuse: Callable[[str], StoreError]) -> None:
        super().__init__({"url": url, "max.retries": 0})
        transport = _BoundedTransport(timeout_s, refuse, verify=ssl.create_default_context())
        self._rest_client.session = httpx2.AsyncClient(
            transport=transport, auth=self._rest_client.auth, timeout=None, follow_redirects=False, trust_env=False
        )


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Reads each reply whole, within a time and a number of bytes."""

    def __init__(self, timeout_s: float, refuse: Callable[[str], StoreError], *, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._timeout_s, self._refuse = timeout_s, refuse

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its reply."""
        # A compressed reply could be much longer than its bytes.
        request.headers["Accept-Encoding"] = "identity"
        async with asyncio.timeout(self._timeout_s):
            reply = await super().handle_async_request(request)
            try:
                if reply.headers.get("Content-Encoding", "identity") != "identity":
                    raise self._refuse("answered with a compressed reply")
                content = bytearray()
                async for part in reply.aiter_raw():
                    content += part
                    if len(content) > _MAX_BYTES:
                        raise self._refuse(f"answered with more than {_MAX_BYTES} bytes")
            finally:
                await reply.aclose()
        return httpx2.Response(reply.status_code, headers=reply.headers, content=bytes(content))


async def _read_references(
    client: _Client, schema_name: str, schema: Schema, found: dict[tuple[str, str, int], str | None]
) -> None:
    """Add the schemas that a schema references; a schema comes after its own references.

    Args:
        schema_name: of the first of all, for errors.
        found: by name, subject and version its text; None: it is being read.
    """
    for reference in schema.references or ():
        name, subject, version = place = _parse_reference(schema_name, reference)
        if found.get(place) is not None:
            continue
        if place in found:
            raise PayloadError(f"{schema_name} has references that lead back to themselves")
        if len(found) >= _MOST_REFERENCES or sum(text is None for text in found.values()) >= _MOST_DEPTH:
            raise PayloadError(f"{schema_name} has too many references")
        if any(name == other for other, _, _ in found):
            raise PayloadError(f"{schema_name} references two schemas by one name")
        try:
            inner = (await client.get_version(subject, version, fmt="serialized")).schema
        except SchemaRegistryError as error:
            if error.http_status_code != _NOT_FOUND:
                raise
            raise PayloadError(f"{schema_name} references a schema that the registry does not have") from None
        if not isinstance(inner.schema_str, str):
            raise PayloadError(f"{schema_name} references a schema that the registry does not have")
        found[place] = None
        await _read_references(client, schema_name, inner, found)
        del found[place]  # to come after its own
        found[place] = inner.schema_str


def _parse_reference(schema_name: str, reference: SchemaReference) -> tuple[str, str, int]:
    match reference.name, reference.subject, reference.version:
        case str(name), str(subject), int(version):
            return name, subject, version
    raise PayloadError(f"{schema_name} has a reference without name, subject and version")


def open_registry(settings: Settings, thing: str, message_format: str) -> SchemaRegistry:
    """Return the registry of a project for a sink or source of a format.

    Raises:
        DefinitionError: the project has no registry.
    """
    if settings.schema_registry is None:
        raise DefinitionError(
            thing,
            f"has the format {message_format!r}, and the project has no schema registry",
            fix="set 'schema_registry' to its URL",
        )
    return SchemaRegistry(settings.schema_registry)


def _check_url(url: str) -> None:
    """Raise DefinitionError unless a URL is https, or http to this machine; it is never quoted: it has a password."""
    thing, fix = "setting 'schema_registry'", "write it as https://USER:PASSWORD@host, or http:// for this machine"
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        raise DefinitionError(thing, "is not a URL", fix=fix) from None
    # The client takes several URLs, separated by commas.
    is_one = parts.scheme in {"http", "https"} and not parts.query and not parts.fragment and "," not in url
    if not host or not is_one:
        raise DefinitionError(thing, "is not an http or https URL", fix=fix)
    if parts.scheme == "http" and not is_loopback(host):
        raise DefinitionError(thing, "has no TLS and is another machine", value=host, fix=fix)
