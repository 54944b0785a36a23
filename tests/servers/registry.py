"""A small schema registry: the parts of Confluent's documented REST protocol that we use. It is not a real registry."""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_BY_ID = re.compile(r"/schemas/ids/(\d+)")
_LATEST = re.compile(r"/subjects/([^/]+)/versions/(latest|\d+)")
_VERSIONS = re.compile(r"/subjects/([^/]+)/versions")


@dataclass
class Registry:
    """The schemas, and what the server was asked; ``refused``: a subject that accepts no schema.

    ``replies`` has replies in place of the protocol's, by path: a status and bytes; ``headers``: more of each reply.
    """

    user: str | None = None
    refused: str | None = None
    schemas: list[dict[str, Any]] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    replies: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def add(self, subject: str, kind: str, text: str, references: list[dict[str, Any]] | None = None) -> int:
        """Register a schema as a producer does; return its id."""
        schema = {"schemaType": kind, "schema": text, "references": references or []}
        if schema not in self.schemas:
            self.schemas.append(schema)
        number = self.schemas.index(schema) + 1
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def reply(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the reply to a request."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path in self.replies:
            return self.replies[path]
        if method == "POST" and (match := _VERSIONS.fullmatch(path)):
            return self._register(unquote(match[1]), json.loads(body))
        if match := _BY_ID.fullmatch(path):
            number = int(match[1])
            if 0 < number <= len(self.schemas):
                return 200, json.dumps(self._describe(number, query)).encode()
            return 404, b'{"error_code": 40403, "message": "Schema not found"}'
        if (match := _LATEST.fullmatch(path)) and (versions := self.subjects.get(unquote(match[1]))):
            number = versions[-1] if match[2] == "latest" else versions[int(match[2]) - 1]
            facts = {"subject": unquote(match[1]), "version": versions.index(number) + 1, "id": number}
            return 200, json.dumps(facts | self._describe(number, query)).encode()
        return 404, b'{"error_code": 40401, "message": "Subject not found"}'

    def _register(self, subject: str, schema: dict[str, Any]) -> tuple[int, bytes]:
        if subject == self.refused:
            return 409, b'{"error_code": 409, "message": "Schema being registered is incompatible"}'
        number = self.add(subject, schema.get("schemaType", "AVRO"), schema["schema"], schema.get("references"))
        return 200, json.dumps({"id": number}).encode()

    def _describe(self, number: int, query: dict[str, list[str]]) -> dict[str, Any]:
        schema = self.schemas[number - 1]
        kind, references = schema["schemaType"], schema["references"]
        # Avro is the default, and its name is omitted; so are empty references.
        facts = {"schema": schema["schema"]} | ({} if kind == "AVRO" else {"schemaType": kind})
        if kind == "PROTOBUF" and query.get("format") != ["serialized"]:
            facts["schema"] = 'syntax = "proto3"; // a text that the client does not read'
        return facts | ({"references": references} if references else {})


@contextmanager
def schema_registry(user: str | None = None) -> Iterator[Registry]:
    """Serve a registry on a free port; ``user``: name and password as ``name:password``."""
    registry = Registry(user=user)

    class RegistryHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            registry.requests.append(f"{self.command} {urlsplit(self.path).path}")
            expected = None if user is None else f"Basic {b64encode(user.encode()).decode()}"
            if expected is not None and self.headers.get("Authorization") != expected:
                status, reply = 401, b'{"error_code": 401, "message": "Unauthorized"}'
            else:
                status, reply = registry.reply(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(reply)))
            for name, value in registry.headers.items():
                self.send_header(name, value)
            if status in {301, 307}:
                self.send_header("Location", "/schemas/ids/1")
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = _answer  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), RegistryHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    credentials = "" if user is None else f"{user}@"
    registry.url = f"http://{credentials}127.0.0.1:{server.server_address[1]}"
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
