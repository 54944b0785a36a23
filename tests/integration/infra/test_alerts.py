"""Alerts are sent once, stored until they are resolved, and reach the webhook in the end, with either database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import DefinitionError, StoreError
from skewless.infra.platform.alerts.alerts import TOKEN_VARIABLE, Alert, Alerts, Webhook, open_alerts
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from tests.servers.postgres import address_of

DRIFT = Alert(
    name="drift", severity="warning", subject="delay", message="3 of 9 features", at_us=5, evidence={"psi": 0.4}
)


class Receiver:
    """A webhook's other end: answers with the statuses it was given, then with 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.delay_s = 0.0
        self.on_post: Callable[[], object] | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                time.sleep(receiver.delay_s)
                on_post, receiver.on_post = receiver.on_post, None
                if on_post is not None:
                    on_post()
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
def alert_state(tmp_path: Path, project_database: Database) -> ProjectState:
    return ProjectState(tmp_path, address_of(project_database))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_an_alert_is_told_once_until_it_is_resolved(alert_state: ProjectState) -> None:
    alerts = Alerts(alert_state)
    assert [alerts.send(DRIFT), alerts.send(replace(DRIFT, at_us=6, message="4 of 9 features"))] == [True, False]
    assert [(item.message, item.at_us) for item in open_alerts(alert_state)] == [("4 of 9 features", 6)]
    assert alerts.resolve("drift", "delay", 7)
    assert not alerts.resolve("drift", "delay", 8)
    assert open_alerts(alert_state) == []
    assert alerts.send(replace(DRIFT, at_us=9))
    assert [(item.number, item.since_us, item.resolved_at_us) for item in alerts.records()] == [(1, 5, 7), (2, 9, None)]


def test_another_severity_or_subject_is_told(alert_state: ProjectState) -> None:
    alerts = Alerts(alert_state)
    assert alerts.send(DRIFT)
    assert alerts.send(replace(DRIFT, severity="critical"))
    assert alerts.send(replace(DRIFT, subject="other"))
    assert {(item.subject, item.severity) for item in open_alerts(alert_state)} == {
        ("delay", "critical"),
        ("other", "warning"),
    }


def test_alerts_of_many_at_once_are_all_kept(alert_state: ProjectState) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda i: Alerts(alert_state).send(replace(DRIFT, subject=f"m{i % 10}")), range(40)))
    assert sum(told) == 10
    assert sorted(item.number for item in Alerts(alert_state).records()) == list(range(1, 11))


@pytest.mark.parametrize("body", [[{}], [1], 1])
def test_corrupt_alerts_are_an_error(alert_state: ProjectState, body: object) -> None:
    Documents(alert_state.database, "alerts").put("project", body)
    for read_or_write in (lambda: open_alerts(alert_state), lambda: Alerts(alert_state).send(DRIFT)):
        with pytest.raises(StoreError, match="alerts: are corrupt in the database"):
            read_or_write()


def test_the_webhook_gets_both_notices_with_the_token(
    alert_state: ProjectState, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "t0ken-of-the-webhook")
    with Alerts(alert_state, receiver.url) as alerts:
        alerts.send(DRIFT)
        alerts.resolve("drift", "delay", 9)
    assert [(body["id"], body["notice"], body["subject"]) for body in receiver.got] == [
        ("1-raised-warning", "raised", "delay"),
        ("1-resolved-warning", "resolved", "delay"),
    ]
    assert receiver.got[0]["evidence"] == {"psi": 0.4}
    assert {headers["Authorization"] for headers in receiver.headers} == {"Bearer t0ken-of-the-webhook"}


def test_what_the_webhook_did_not_take_is_owed_and_sent_with_the_next_alert(
    alert_state: ProjectState, receiver: Receiver
) -> None:
    with Alerts(alert_state, "http://127.0.0.1:1") as away:
        away._webhook = Webhook("http://127.0.0.1:1", waits=())
        assert away.send(DRIFT)
    assert Alerts(alert_state).records()[0].owed == ("raised",)
    with Alerts(alert_state, receiver.url) as back:
        back.send(replace(DRIFT, subject="other"))
    assert [body["subject"] for body in receiver.got] == ["delay", "other"]
    assert all(item.owed == () for item in Alerts(alert_state).records())


def test_senders_on_several_machines_send_each_notice_once(alert_state: ProjectState, receiver: Receiver) -> None:
    receiver.delay_s = 0.02

    def send(i: int) -> None:
        with Alerts(alert_state, receiver.url) as alerts:
            alerts.send(replace(DRIFT, subject=f"m{i}"))
            alerts.close(60)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(18)))
    assert sorted(body["subject"] for body in receiver.got) == sorted(f"m{i}" for i in range(18))
    assert Leases(alert_state.database).read_holder("alert_delivery") is None


def test_a_severity_that_changes_during_a_request_is_sent(alert_state: ProjectState, receiver: Receiver) -> None:
    with Alerts(alert_state, receiver.url) as alerts:
        receiver.on_post = lambda: Alerts(alert_state, receiver.url).send(replace(DRIFT, severity="critical"))
        alerts.send(DRIFT)
        alerts.close(60)
    with Alerts(alert_state, receiver.url) as others:
        others.send(replace(DRIFT, subject="other"))
    ids = [body["id"] for body in receiver.got]
    assert ids == ["1-raised-warning", "1-raised-critical", "2-raised-warning"]


def test_a_database_that_fails_during_a_request_ends_no_sending(
    alert_state: ProjectState, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    with Alerts(alert_state, receiver.url) as alerts:
        receiver.on_post = lambda: Documents(alert_state.database, "alerts").put("project", 1)
        alerts.send(DRIFT)
        alerts.close(60)
        assert "alerts_not_sent" in "".join(capsys.readouterr())
        Documents(alert_state.database, "alerts").delete("project")
        alerts.send(replace(DRIFT, subject="other"))
    assert [body["subject"] for body in receiver.got] == ["delay", "other"]


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
