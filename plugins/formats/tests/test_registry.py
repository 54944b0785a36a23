"""The client of the schema registry: the documented protocol, its bounds, and what it never tells."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.registry import RegisteredSchema, SchemaRegistry
from tests.servers.registry import Registry, schema_registry

SECRET = "us%65r:p%40ss"  # noqa: S105 - of this test


@pytest.fixture
def schemas() -> Iterator[Registry]:
    with schema_registry("user:p@ss") as served:
        served.url = served.url.replace("user:p@ss", SECRET)
        yield served


def test_a_schema_is_registered_once_and_read_by_id_and_as_the_latest(schemas: Registry) -> None:
    client = SchemaRegistry(schemas.url)
    first, second = client.register("a/b", "AVRO", '"int"'), client.register("a/b", "AVRO", '"long"')
    assert (first, second, client.register("a/b", "AVRO", '"int"')) == (1, 2, 1)
    assert client.schema(first) == RegisteredSchema(id=1, kind="AVRO", text='"int"')
    assert client.latest("a/b") == RegisteredSchema(id=2, kind="AVRO", text='"long"')
    assert client.latest("c") is None
    assert client.schema(3) is None


def test_a_refused_registration_says_why(schemas: Registry) -> None:
    schemas.refused = "a"
    with pytest.raises(DefinitionError, match="Schema being registered is incompatible"):
        SchemaRegistry(schemas.url).register("a", "AVRO", '"int"')


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, b"{}", "answered with status 500"),
        (307, b"", "answered with status 307"),
        (200, b"[", "answered with something that is not a schema"),
        (200, b"[1]", "answered with something that is not a schema"),
        (200, b'{"schema": 1}', "answered with something that is not a schema"),
        (200, b" " * 2_000_000, "answered with more than 1048576 bytes"),
    ],
)
def test_a_wrong_reply_is_an_error_and_is_not_remembered(
    schemas: Registry, status: int, body: bytes, problem: str
) -> None:
    client = SchemaRegistry(schemas.url)
    schemas.add("a", "AVRO", '"int"')
    schemas.replies["/schemas/ids/1"] = status, body
    with pytest.raises(StoreError, match=problem):
        client.schema(1)
    schemas.replies.clear()
    assert client.schema(1) is not None


def test_a_compressed_reply_is_refused(schemas: Registry) -> None:
    schemas.add("a", "AVRO", '"int"')
    schemas.headers["Content-Encoding"] = "gzip"
    with pytest.raises(StoreError, match="answered with a compressed reply"):
        SchemaRegistry(schemas.url).schema(1)


def test_a_registry_is_asked_without_the_proxy_of_the_environment(
    schemas: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    schemas.add("a", "AVRO", '"int"')
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert SchemaRegistry(schemas.url).schema(1) is not None


def test_references_that_never_end_are_an_error(schemas: Registry) -> None:
    for level in range(12):
        more = [{"name": f"{level}.proto", "subject": f"s{level + 1}", "version": 1}]
        schemas.add(f"s{level}", "PROTOBUF", "", more)
    with pytest.raises(PayloadError, match="has too many references"):
        SchemaRegistry(schemas.url).latest("s0")


@pytest.mark.parametrize(
    "url", ["http://example.com", "ftp://127.0.0.1", "https://", "https://h:x", "https://h/?a=b", "nothing"]
)
def test_a_url_must_be_https_or_of_this_machine(url: str) -> None:
    with pytest.raises(DefinitionError, match="schema_registry"):
        SchemaRegistry(url.replace("://", f"://{SECRET}@", 1))


def test_no_error_has_the_password(schemas: Registry) -> None:
    with pytest.raises(StoreError, match="status 401") as refusal:
        SchemaRegistry(schemas.url.replace("p%40ss", "wr0ng")).latest("a")
    assert "wr0ng" not in str(refusal.value)
    assert "127.0.0.1" in str(refusal.value)
    with pytest.raises(DefinitionError) as wrong:
        SchemaRegistry("http://user:wr0ng@example.com")
    assert "wr0ng" not in str(wrong.value)


def test_a_registry_that_never_finishes_its_reply_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                while True:
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return
                    if stop.wait(0.02):
                        return

        stop = threading.Event()
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(StoreError, match=r"did not answer in 0.2 s|cannot be reached"):
                SchemaRegistry(f"http://127.0.0.1:{server.getsockname()[1]}", 0.2).schema(1)
        finally:
            stop.set()
            thread.join()
