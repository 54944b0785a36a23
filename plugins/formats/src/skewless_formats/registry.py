"""The client of a schema registry: the documented REST protocol of Confluent's, which others serve, too.

A schema never changes under its id, so schemas are remembered by id. Protobuf schemas are exchanged as serialized
descriptors (``format=serialized``), because no parser of ``.proto`` texts is needed then.
https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import orjson

from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.loopback import is_loopback
from skewless.contract.settings import Settings
from skewless.infra.platform.formats.frame import PayloadError

SchemaKind = Literal["AVRO", "PROTOBUF"]
_CONTENT = "application/vnd.schemaregistry.v1+json"
_MAX_BYTES = 1_048_576  # of a reply; larger schemas are not usable
_TIMEOUT_S = 10.0  # of one request with its reply
_MOST_SCHEMAS, _MOST_REFERENCES, _MOST_DEPTH = 1_000, 100, 8
_MISSING_S = 10.0  # at least between two requests for one missing schema, however many messages name it
_OK, _NOT_FOUND, _INVALID = 200, 404, frozenset({409, 422})


@dataclass(frozen=True, kw_only=True)
class RegisteredSchema:
    """A schema of the registry.

    Args:
        id: in the registry.
        kind: its language: ``AVRO``, ``PROTOBUF`` or another one, which cannot be read.
        text: JSON of an Avro schema; base64 of a serialized FileDescriptorProto.
        references: the schemas that it imports, by the name in the import, with theirs first.
    """

    id: int
    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


class _Reference(NamedTuple):
    """The name by which a schema uses another one, which is a version of a subject."""

    name: str
    subject: str
    version: int


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
        self._url, self._credentials = _parse_url(url)
        self._timeout_s = timeout_s
        self._schemas: OrderedDict[int, RegisteredSchema] = OrderedDict()
        self._missing: dict[int, float] = {}
        self._lock = threading.Lock()

    def schema(self, schema_id: int) -> RegisteredSchema | None:
        """Return a schema by its id, from memory if it was read before; None: the registry does not have it.

        Raises:
            StoreError: the registry is unavailable, or its reply is wrong.
            PayloadError: its references end nowhere, are too many, or one of them is missing.
        """
        with self._lock:
            if schema_id in self._schemas:
                self._schemas.move_to_end(schema_id)
                return self._schemas[schema_id]
            if time.monotonic() - self._missing.get(schema_id, -_MISSING_S) < _MISSING_S:
                return None
        schema = asyncio.run(self._read(f"/schemas/ids/{schema_id}", schema_id))
        with self._lock:
            if schema is not None:
                self._schemas[schema_id] = schema
                while len(self._schemas) > _MOST_SCHEMAS:
                    self._schemas.popitem(last=False)
            else:
                if len(self._missing) >= _MOST_SCHEMAS:
                    self._missing.clear()
                self._missing[schema_id] = time.monotonic()
        return schema

    def latest(self, subject: str) -> RegisteredSchema | None:
        """Return the latest schema of a subject; None: it has none.

        Raises:
            StoreError: the registry is unavailable, or its reply is wrong.
            PayloadError: its references end nowhere, are too many, or one of them is missing.
        """
        return asyncio.run(self._read(f"/subjects/{quote(subject, safe='')}/versions/latest", None))

    def register(self, subject: str, kind: SchemaKind, text: str) -> int:
        """Register a schema in a subject, unless it is there already; return its id.

        Raises:
            StoreError: the registry is unavailable.
            DefinitionError: the registry refuses it, for example because the subject's schemas are not compatible.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        body = {"schema": text, "schemaType": kind}
        status, reply = asyncio.run(self._request_alone("POST", path, body))
        if status in _INVALID:
            message = str(reply.get("message", ""))[:300] if isinstance(reply, dict) else ""
            raise DefinitionError(
                f"subject {subject!r} of the schema registry",
                f"does not accept the schema of decisions: {message}",
                fix="use another subject, or correct its compatibility in the registry",
            )
        if status != _OK or not isinstance(reply, dict) or not _is_id(reply.get("id")):
            raise self._error(f"answered with status {status} to a registration")
        return int(reply["id"])

    async def _read(self, path: str, schema_id: int | None) -> RegisteredSchema | None:
        async with self._session() as session:
            reply = await self._get(session, path)
            if reply is None:
                return None
            kind = reply.get("schemaType", "AVRO")
            if kind == "PROTOBUF":
                reply = await self._get(session, f"{path}?format=serialized") or {}
            found: Any = reply.get("id", schema_id)
            text = reply.get("schema")
            if not isinstance(text, str) or not _is_id(found):
                raise self._error("answered with a schema that is neither Avro nor Protobuf")
            references: dict[_Reference, str | None] = {}
            # A schema that cannot be read must not let the events of others wait.
            await self._read_references(session, f"schema {found}", reply.get("references"), references)
            return RegisteredSchema(
                id=found,
                kind=kind if kind in {"AVRO", "PROTOBUF"} else "neither Avro nor Protobuf",
                text=text,
                references=tuple((reference.name, text or "") for reference, text in references.items()),
            )

    async def _read_references(
        self,
        session: Any,  # noqa: ANN401 - aiohttp is imported late
        schema: str,
        references: object,
        found: dict[_Reference, str | None],
    ) -> None:
        """Add the schemas that a schema references; a schema comes after its own references.

        Args:
            schema: the first of all, for errors.
            found: by reference its schema; None: it is being read.
        """
        for reference in _list_references(schema, references):
            if found.get(reference) is not None:
                continue
            if reference in found:
                raise PayloadError(f"{schema} has references that lead back to themselves")
            if len(found) >= _MOST_REFERENCES or sum(text is None for text in found.values()) >= _MOST_DEPTH:
                raise PayloadError(f"{schema} has too many references")
            if any(reference.name == other.name for other in found):
                raise PayloadError(f"{schema} references two schemas by one name")
            path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
            reply = await self._get(session, path)
            if reply is not None and reply.get("schemaType") == "PROTOBUF":
                reply = await self._get(session, f"{path}?format=serialized")
            if reply is None or not isinstance(reply.get("schema"), str):
                raise PayloadError(f"{schema} references a schema that the registry does not have")
            found[reference] = None
            await self._read_references(session, schema, reply.get("references"), found)
            del found[reference]  # to come after its own
            found[reference] = reply["schema"]

    async def _get(self, session: Any, path: str) -> dict[str, Any] | None:  # noqa: ANN401 - as above
        status, reply = await self._request(session, "GET", path, None)
        if status == _NOT_FOUND:
            return None
        if status != _OK or not isinstance(reply, dict):
            raise self._error(f"answered with status {status}")
        return reply

    async def _request_alone(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, object]:
        async with self._session() as session:
            return await self._request(session, method, path, body)

    async def _request(
        self,
        session: Any,  # noqa: ANN401 - as above
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
    ) -> tuple[int, object]:
        import aiohttp  # noqa: PLC0415 - only with a registry

        data = None if body is None else orjson.dumps(body)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                session.request(method, f"{self._url}{path}", data=data, allow_redirects=False) as reply,
            ):
                content = await reply.content.read(_MAX_BYTES + 1)
                while len(content) <= _MAX_BYTES and (more := await reply.content.read(_MAX_BYTES)):
                    content += more
        except TimeoutError:
            raise self._error(f"did not answer in {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(f"cannot be reached: {type(error).__name__}") from None
        if len(content) > _MAX_BYTES:
            raise self._error(f"answered with more than {_MAX_BYTES} bytes")
        try:
            return reply.status, orjson.loads(content)
        except orjson.JSONDecodeError:
            return reply.status, None

    def _session(self) -> Any:  # noqa: ANN401 - as above
        import aiohttp  # noqa: PLC0415 - as above

        # A compressed reply could be much longer than its bytes.
        headers = {"Accept": _CONTENT, "Content-Type": _CONTENT, "Accept-Encoding": "identity"}
        tls = ssl.create_default_context() if self._url.startswith("https") else False
        connector = aiohttp.TCPConnector(ssl=tls, limit=1)
        return aiohttp.ClientSession(connector=connector, auto_decompress=False, headers=headers | self._credentials)

    def _error(self, problem: str) -> StoreError:
        host = urlsplit(self._url).hostname
        return StoreError(f"schema registry at {host!r}", problem, fix="start it, or correct 'schema_registry'")


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


def _parse_url(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without user and password, and the headers with these; the URL is never quoted in an error."""
    thing, fix = "setting 'schema_registry'", "write it as https://USER:PASSWORD@host, or http:// for this machine"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise DefinitionError(thing, "is not a URL", fix=fix) from None
    if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise DefinitionError(thing, "is not an http or https URL", fix=fix)
    if parts.scheme == "http" and not is_loopback(host):
        raise DefinitionError(thing, "has no TLS and is another machine", value=host, fix=fix)
    address = f"[{host}]" if ":" in host else host
    place = address if port is None else f"{address}:{port}"
    bare = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
    if parts.username is None:
        return bare, {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return bare, {"Authorization": f"Basic {b64encode(user.encode()).decode()}"}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _list_references(schema: str, references: object) -> list[_Reference]:
    listed = []
    for item in references if isinstance(references, list) else ():
        match item:
            case {"name": str(name), "subject": str(subject), "version": int(version)}:
                listed.append(_Reference(name, subject, version))
            case _:
                raise PayloadError(f"{schema} has a reference without name, subject and version")
    return listed
