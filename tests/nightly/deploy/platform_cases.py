"""The bodies that platforms send, and what a container must answer; for a local process and for the image."""

from __future__ import annotations

import csv
import io
import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.nightly.deploy.platform_drivers import CSV, JSON, PING_S, PlatformContainer, Reply

COLUMNS = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
SIX_MB = 6 * 1024 * 1024
Row = dict[str, Any]


def instances(rows: Sequence[Row], **parameters: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the JSON body of Vertex AI, which SageMaker's algorithms and Azure's examples use too."""
    return json.dumps({"instances": rows, **({"parameters": parameters} if parameters else {})}).encode()


def csv_body(rows: Sequence[Row], columns: Sequence[str] = tuple(COLUMNS), *, header: bool = False) -> bytes:
    """Return rows as CSV; null is an empty field."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([columns] if header else [])
    writer.writerows([["" if row[name] is None else row[name] for name in columns] for row in rows])
    return text.getvalue().encode()


def tensors(rows: Sequence[Row]) -> bytes:
    """Return the JSON body of the Open Inference Protocol."""
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(rows)], "data": [row[name] for row in rows]}
        for name, kind in COLUMNS.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def scores(reply: Reply) -> list[float]:
    """Return the scores of a reply in any form."""
    assert reply.status == 200, reply.body
    if reply.headers["content-type"].startswith(CSV):
        return [float(line) for line in reply.body.decode().splitlines()]
    body = reply.json
    if "outputs" in body:
        return list(body["outputs"][0]["data"])
    return [item["score"] for item in body["predictions"]]


def valid_body(container: PlatformContainer, rows: Sequence[Row]) -> bytes:
    """Return a valid JSON body of the platform."""
    return tensors(rows) if container.driver.name == "kserve" else instances(rows)


def check_forms(container: PlatformContainer, rows: Sequence[Row], expected: Sequence[float]) -> None:
    """Each form of a request has the expected scores, to the last bit."""
    assert scores(container.predict(valid_body(container, rows))) == expected
    assert scores(container.ask("POST", "/predict", json.dumps({"rows": rows}).encode())) == expected
    if container.driver.name == "kserve":
        return
    assert scores(container.predict(json.dumps({"rows": rows}).encode())) == expected
    mixed = ["paid_at", "amount", "shop_id", "card_id"]
    for body, kind in (
        (csv_body(rows), CSV),
        (csv_body(rows), f"{CSV}; charset=utf-8"),
        (csv_body(rows, mixed, header=True), f"{CSV}; header=present"),
    ):
        reply = container.predict(body, kind)
        assert scores(reply) == expected
        assert reply.headers["content-type"].startswith(CSV)
        assert "model=fraud;version=000001" in reply.headers["x-amzn-sagemaker-custom-attributes"]
        assert reply.headers["x-amzn-sagemaker-custom-attributes"].endswith("degraded=false")
    as_json = container.predict(csv_body(rows), CSV, accept=JSON)
    assert scores(as_json) == expected
    assert as_json.json.keys() == {"predictions"}
    assert scores(container.predict(instances(rows), accept=CSV)) == expected


def check_predictions_are_complete(container: PlatformContainer, rows: Sequence[Row]) -> None:
    """What the platform passes on has all that a caller needs: it drops fields beside ``predictions``."""
    body = instances(rows, features=True, model="fraud", as_of="2026-01-15T12:00:00Z")
    reply = container.predict(body).json
    assert reply.keys() == {"predictions"}
    for item in reply["predictions"]:
        assert {"id", "score", "version", "t_us", "degraded", "features", "views"} <= item.keys()
        assert (item["version"], item["t_us"], item["degraded"]) == ("000001", 1_768_478_400_000_000, False)


def check_errors(container: PlatformContainer, rows: Sequence[Row]) -> None:
    """Each invalid request gets a status and an error that names what to do."""
    wrong = {"card_id": "x"}
    cases: list[tuple[bytes, str, int, str]] = [
        (b"{", JSON, 400, "is not JSON"),
        (b'{"rows": 1}', JSON, 400, "has no list 'rows'"),
        (b'{"instances": {}}', JSON, 400, "is not a list"),
        (b'{"instances": []}', JSON, 400, "is empty"),
        (b'{"instances": [], "model": "fraud"}', JSON, 400, "has an unknown field"),
        (b'{"instances": [], "parameters": []}', JSON, 400, "is not an object"),
        (b'{"instances": [], "parameters": {"rows": []}}', JSON, 400, "is not an object of options"),
        (instances(rows, speed=1), JSON, 400, "has an unknown field"),
        (instances(rows, model="none"), JSON, 404, "is not a served model"),
        (instances([{**rows[0], **wrong}]), JSON, 400, "row 0 "),
        (instances([[1, 2, 3, 4]]), JSON, 400, "is not an object"),  # type: ignore[list-item]
        (b"", CSV, 400, "is empty"),
        (b"\xff\n", CSV, 400, "is not CSV"),
        (b'"a\n', CSV, 400, "is not CSV"),
        (b"1,2,3\n", CSV, 400, "row 0: has 3 fields"),
        (csv_body(rows[:1]) + b"\n" + csv_body(rows[:1]), CSV, 400, "row 1: has 0 fields"),
        (csv_body([{**rows[0], **wrong}]), CSV, 400, "row 0 "),
        (csv_body(rows, ["card_id"], header=True), f"{CSV}; header=present", 400, "CSV header"),
        (csv_body([{**rows[0], "amount": "nan"}]), CSV, 400, "row 0 "),
        (csv_body([{**rows[0], "amount": "1_0"}]), CSV, 400, "row 0 "),
    ]
    for body, kind, status, text in cases:
        reply = container.predict(body, kind)
        assert reply.status == status, (body, reply.body)
        assert text in reply.json["error"]["message"], (body, reply.body)
        assert reply.headers["content-type"] == JSON


def check_limits(container: PlatformContainer, rows: Sequence[Row], expected: Sequence[float]) -> None:
    """A body of 6 MB is answered; a longer one than the limit is refused, whether or not its length is declared."""
    body = valid_body(container, rows)
    assert scores(container.predict(body + b" " * (SIX_MB - len(body)))) == expected
    assert container.predict(b" " * (8 * 1024 * 1024 + 1)).status == 413


def check_slow_body(container: PlatformContainer, rows: Sequence[Row]) -> None:
    """A body that arrives slowly delays nobody, and is answered."""
    body = valid_body(container, rows)
    with open_slow_request(container, body) as slow:
        for byte in range(5):
            slow.sendall(body[byte : byte + 1])
            assert container.is_healthy()
            assert container.predict(body).status == 200
        slow.sendall(body[5:])
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200 ")


def open_slow_request(container: PlatformContainer, body: bytes) -> socket.socket:
    """Return a connection on which the head of a prediction was sent."""
    connection = socket.create_connection(("127.0.0.1", container.port), timeout=60)
    head = f"POST {container.driver.predict} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    return connection


def check_concurrent(container: PlatformContainer, rows: Sequence[Row], expected: Sequence[float]) -> None:
    """Sixteen callers get their own scores, and health checks pass within the platform's time meanwhile."""

    def call(number: int) -> None:
        i = number % len(rows)
        is_csv = number % 2 and container.driver.name != "kserve"
        body, kind = (csv_body(rows[i : i + 1]), CSV) if is_csv else (valid_body(container, rows[i : i + 1]), JSON)
        assert scores(container.predict(body, kind)) == [expected[i]]

    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(call, number) for number in range(96)]
        while not all(done.done() for done in calls):
            began = time.monotonic()
            assert container.ask("GET", container.driver.health).status == 200
            assert time.monotonic() - began < PING_S
        for done in calls:
            done.result()


def check_other_routes(container: PlatformContainer) -> None:
    """Callers of the platform predict and read; they do not change the server."""
    assert container.ask("GET", "/models").status == 200
    assert container.ask("GET", "/metrics").status == 200
    for path in ("/models/refresh", "/models/fraud/rollback", "/v2/repository/models/fraud/unload", "/feedback"):
        reply = container.ask("POST", path, b"{}")
        assert reply.status == 403, path
    assert container.ask("GET", container.driver.predict).status == 405


def check_readiness_per_model(container: PlatformContainer) -> None:
    """KServe asks for the model, and the server."""
    for path, status in (("/v2/models/fraud/ready", 200), ("/v2/models/none/ready", 404), ("/v2/health/ready", 200)):
        assert container.ask("GET", path).status == status
    assert container.ask("GET", "/v2/models/fraud").json["name"] == "fraud"
