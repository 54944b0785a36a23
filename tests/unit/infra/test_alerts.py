"""Alerts are told once, kept until they are resolved, and reach the webhook in the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.alerts.alerts import Alert, Alerts, open_alerts
from skewless.infra.alerts.webhook import TOKEN_VARIABLE, Webhook
from skewless.infra.storage.project_state import ProjectState

DRIFT = Alert(
    name="drift", severity="warning", subject="delay", message="3 of 9 features", at_us=5, evidence={"psi": 0.4}
)


class Receiver:
    """A webhook's other end: answers with the statuses it was given, then with 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.headers.append(dict(self.headers))
                if status == 200:
                    receiver.got.append(body)
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?key=s3cret"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_an_alert_is_told_once_until_it_is_resolved(tmp_path: Path) -> None:
    alerts = Alerts(ProjectState(tmp_path))
    assert [alerts.send(DRIFT), alerts.send(replace(DRIFT, at_us=6, message="4 of 9 features"))] == [True, False]
    assert [(item.message, item.at_us) for item in open_alerts(ProjectState(tmp_path))] == [("4 of 9 features", 6)]
    assert alerts.resolve("drift", "delay", 7)
    assert not alerts.resolve("drift", "delay", 8)
    assert open_alerts(ProjectState(tmp_path)) == []
    assert alerts.send(replace(DRIFT, at_us=9))
    assert [(item.number, item.since_us, item.resolved_at_us) for item in alerts.records()] == [(1, 5, 7), (2, 9, None)]


def test_another_severity_or_subject_is_told(tmp_path: Path) -> None:
    alerts = Alerts(ProjectState(tmp_path))
    assert alerts.send(DRIFT)
    assert alerts.send(replace(DRIFT, severity="critical"))
    assert alerts.send(replace(DRIFT, subject="other"))
    assert {(item.subject, item.severity) for item in open_alerts(ProjectState(tmp_path))} == {
        ("delay", "critical"),
        ("other", "warning"),
    }


def test_alerts_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(
            pool.map(lambda i: Alerts(ProjectState(tmp_path)).send(replace(DRIFT, subject=f"m{i % 10}")), range(40))
        )
    assert sum(told) == 10
    assert sorted(item.number for item in Alerts(ProjectState(tmp_path)).records()) == list(range(1, 11))


def test_a_damaged_file_is_an_error_but_shows_nothing_to_metrics(tmp_path: Path) -> None:
    Alerts(ProjectState(tmp_path)).send(DRIFT)
    (tmp_path / "alerts" / "alerts.json").write_text("[{}]")
    assert open_alerts(ProjectState(tmp_path)) == []
    with pytest.raises(StoreError):
        Alerts(ProjectState(tmp_path)).send(DRIFT)


def test_the_webhook_gets_both_notices_with_the_token(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "t0ken-of-the-webhook")
    with Alerts(ProjectState(tmp_path), receiver.url) as alerts:
        alerts.send(DRIFT)
        alerts.resolve("drift", "delay", 9)
    assert [(body["id"], body["notice"], body["subject"]) for body in receiver.got] == [
        ("1-raised-warning", "raised", "delay"),
        ("1-resolved-warning", "resolved", "delay"),
    ]
    assert receiver.got[0]["evidence"] == {"psi": 0.4}
    assert {headers["Authorization"] for headers in receiver.headers} == {"Bearer t0ken-of-the-webhook"}


def test_what_the_webhook_did_not_take_is_owed_and_sent_with_the_next_alert(tmp_path: Path, receiver: Receiver) -> None:
    with Alerts(ProjectState(tmp_path), "http://127.0.0.1:1") as away:
        away._webhook = Webhook("http://127.0.0.1:1", waits=())
        assert away.send(DRIFT)
    assert Alerts(ProjectState(tmp_path)).records()[0].owed == ("raised",)
    with Alerts(ProjectState(tmp_path), receiver.url) as back:
        back.send(replace(DRIFT, subject="other"))
    assert [body["subject"] for body in receiver.got] == ["delay", "other"]
    assert all(item.owed == () for item in Alerts(ProjectState(tmp_path)).records())


def test_a_post_is_tried_again_but_never_elsewhere(receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    waited: list[float] = []
    receiver.statuses = [503, 302, 200]
    assert Webhook(receiver.url, waits=(1.0, 2.0, 4.0), sleep=waited.append).post({"a": 1})
    assert waited == [1.0, 2.0]
    receiver.statuses = [500, 500]
    assert not Webhook(receiver.url, waits=(1.0,), sleep=waited.append).post({"a": 1})
    assert "s3cret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("url", ["ftp://host/x", "host/x", "https://"])
def test_other_urls_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Webhook(url)
    assert url not in str(caught.value)
