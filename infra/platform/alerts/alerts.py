"""Alerts: each is logged and sent to a webhook once, with a few retries, and stays open until it is resolved."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from skewless.contract.clock import from_us
from skewless.contract.errors import ConflictError, DefinitionError, StoreError
from skewless.contract.plain_record import build_record
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger

TOKEN_VARIABLE = "SKEWLESS_ALERT_TOKEN"  # noqa: S105 - its name, not a token
_TIMEOUT_SECONDS = 5.0
_WAITS = (0.5, 2.0, 8.0)
_ACCEPTED = range(200, 300)
Severity = Literal["info", "warning", "critical"]
Notice = Literal["raised", "resolved"]
_MOST_RESOLVED = 1_000
_KIND, _NAME = "alerts", "project"
_DELIVERY = "alert_delivery"
_log = EventLogger()


class Webhook:
    """The receiver of notices. Redirects are not followed, because they could send the token to another host.

    Args:
        url: ``http://`` or ``https://``; it may contain a secret and is never logged.
        waits: seconds before each retry.
        sleep: waits that many seconds.

    Raises:
        DefinitionError: the URL is neither http nor https.
    """

    def __init__(
        self, url: str, *, waits: tuple[float, ...] = _WAITS, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in {"http", "https"} or not self._url.hostname:
            raise DefinitionError("setting 'alert_webhook'", "is not an http or https URL", fix="correct it")
        self._waits = waits
        self._sleep = sleep

    def post(self, body: Mapping[str, Any]) -> bool:
        """Send a body as JSON; return whether the receiver accepted it (status 200 to 299)."""
        data = json.dumps(body).encode()
        for seconds in (None, *self._waits):
            if seconds is not None:
                self._sleep(seconds)
            if (problem := self._attempt(data)) is None:
                return True
        _log.warning("webhook_failed", host=self._url.hostname, attempts=len(self._waits) + 1, problem=problem)
        return False

    def _attempt(self, data: bytes) -> str | None:
        """Send once; return the problem, None if there was none."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=_TIMEOUT_SECONDS)
        headers = {"Content-Type": "application/json", "User-Agent": "skewless"}
        if token := os.environ.get(TOKEN_VARIABLE):
            headers["Authorization"] = f"Bearer {token}"
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            connection.request("POST", path, data, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        return None if status in _ACCEPTED else f"status {status}"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An open problem that somebody should look at.

    Args:
        name: its kind, for example ``drift``; name and ``subject`` identify the alert.
        subject: for example a model or a view.
        message: the problem, in a sentence.
        at_us: time of detection, UTC microseconds.
        evidence: the measurements behind it, as plain values.
    """

    name: str
    severity: Severity
    subject: str
    message: str
    at_us: int
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Return the name and subject, which identify the alert."""
        return self.name, self.subject


@dataclass(frozen=True, kw_only=True)
class AlertRecord:
    """A stored alert.

    Args:
        number: 1 for the project's first alert.
        alert: as it was last sent.
        since_us: when it was first sent.
        resolved_at_us: when it was resolved; None: it is open.
        owed: notices that the webhook has not accepted yet.
    """

    number: int
    alert: Alert
    since_us: int
    resolved_at_us: int | None = None
    owed: tuple[Notice, ...] = ()

    @property
    def is_open(self) -> bool:
        """Return whether it is not resolved."""
        return self.resolved_at_us is None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; times in ISO 8601."""
        resolved_us = self.resolved_at_us
        return {
            "number": self.number,
            "alert": self.alert.name,
            "severity": self.alert.severity,
            "subject": self.alert.subject,
            "since": from_us(self.since_us).isoformat(timespec="seconds"),
            "resolved": None if resolved_us is None else from_us(resolved_us).isoformat(timespec="seconds"),
            "message": self.alert.message,
            "evidence": dict(self.alert.evidence),
            "owed": list(self.owed),
        }


class Alerts:
    """The alerts of one project; several processes and machines may send at the same time.

    An open alert is not sent again unless its severity changes. Notices that the webhook does not accept are stored
    and sent again with the next alert. A receiver may see a notice twice, with the same ``id``: a process was killed,
    or the database failed, after the receiver had accepted it.

    Args:
        state: of the project.
        webhook: URL that receives each notice as JSON (setting ``alert_webhook``); None: there is none.
    """

    def __init__(self, state: ProjectState, webhook: str | None = None) -> None:
        self._state = state
        self._webhook = None if webhook is None else Webhook(webhook)
        self._sender_lock = threading.Lock()
        self._has_new_notices = False
        self._sender: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return the alerts; leaving the block closes them."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def send(self, alert: Alert) -> bool:
        """Store an alert, and log and send it if it is new; return whether it is. Does not wait for the webhook.

        Raises:
            StoreError: the database is unavailable, or the stored alerts are corrupt.
        """
        with _edit_records(self._state) as items:
            i = _find_open(items, alert.key)
            is_new = i is None or items[i].alert.severity != alert.severity
            if i is None:
                number = max((item.number for item in items), default=0) + 1
                items.append(AlertRecord(number=number, alert=alert, since_us=alert.at_us))
                i = -1
            items[i] = replace(items[i], alert=alert, owed=self._owe("raised", items[i]) if is_new else items[i].owed)
        if is_new:
            _log_notice(alert, "raised")
            self._start_sender()
        return is_new

    def resolve(self, name: str, subject: str, at_us: int) -> bool:
        """Close the open alert of this name and subject; return whether there was one.

        Raises:
            StoreError: as ``send``.
        """
        # Checks resolve after every good result, so the usual case only reads.
        if not any(alert.key == (name, subject) for alert in open_alerts(self._state)):
            return False
        with _edit_records(self._state) as items:
            i = _find_open(items, (name, subject))
            if i is not None:
                items[i] = replace(items[i], resolved_at_us=at_us, owed=self._owe("resolved", items[i]))
        if i is not None:
            _log_notice(items[i].alert, "resolved")
            self._start_sender()
        return i is not None

    def records(self) -> list[AlertRecord]:
        """Return all open alerts and the latest resolved alerts, oldest first.

        Raises:
            StoreError: as ``send``.
        """
        return _read(self._state)

    def close(self, seconds: float = 10.0) -> None:
        """Wait for the webhook, at most for ``seconds``; notices that it has not accepted stay stored."""
        sender = self._sender
        if sender is not None:
            sender.join(seconds)

    def _owe(self, notice: Notice, record: AlertRecord) -> tuple[Notice, ...]:
        """Return the notices that the webhook, if there is one, has not accepted yet, with another one."""
        return record.owed if self._webhook is None or notice in record.owed else (*record.owed, notice)

    def _start_sender(self) -> None:
        """Start the thread that sends the stored notices, unless it runs."""
        if self._webhook is None:
            return
        with self._sender_lock:
            self._has_new_notices = True
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_notices, args=(self._webhook,), daemon=True)
                self._sender.start()

    def _send_notices(self, webhook: Webhook) -> None:
        # The flag and the end of the thread change under one lock. So a notice that is stored during the last round
        # either gets another round of this thread, or starts a new thread.
        while True:
            with self._sender_lock:
                if not self._has_new_notices:
                    self._sender = None
                    return
                self._has_new_notices = False
            try:
                self._send_unsent(webhook)
            except (StoreError, ConflictError) as error:  # the notices stay stored
                _log.warning("alerts_not_sent", error=str(error))

    def _send_unsent(self, webhook: Webhook) -> None:
        """Send the stored notices, in order, up to the first that the webhook does not accept."""
        leases = Leases(self._state.database)
        # One sender on all machines. The request is sent outside of transactions, because it can take seconds.
        with leases.hold(_DELIVERY) as lease:
            for record in _read(self._state):
                for notice in record.owed:
                    leases.check(lease)
                    if not webhook.post(_webhook_body(record, notice)):
                        return
                    with _edit_records(self._state) as items:
                        for i, item in enumerate(items):
                            # With another severity by now, the notice must be sent again.
                            if item.number == record.number and item.alert.severity == record.alert.severity:
                                items[i] = replace(item, owed=tuple(each for each in item.owed if each != notice))


@contextmanager
def _edit_records(state: ProjectState) -> Iterator[list[AlertRecord]]:
    """Yield the stored alerts, oldest first, for editing in a transaction; if the block raises, nothing changes."""
    with state.database.transaction():
        items = _read(state)
        before = list(items)
        yield items
        if items != before:
            # A record with unsent notices stays, however old: the webhook would never see its end.
            resolved = [item.number for item in items if not item.is_open and not item.owed]
            expired = set(resolved[:-_MOST_RESOLVED])
            body = [asdict(item) for item in items if item.number not in expired]
            Documents(state.database, _KIND).put(_NAME, body)


def _find_open(items: list[AlertRecord], key: tuple[str, str]) -> int | None:
    """Return the index of the open alert with a name and subject."""
    return next((i for i, item in enumerate(items) if item.is_open and item.alert.key == key), None)


def open_alerts(state: ProjectState) -> list[Alert]:
    """Return the open alerts.

    Raises:
        StoreError: the database is unavailable, or the stored alerts are corrupt.
    """
    return [item.alert for item in _read(state) if item.is_open]


def _log_notice(alert: Alert, notice: Notice) -> None:
    severity = "info" if notice == "resolved" else alert.severity
    write = {"critical": _log.error, "warning": _log.warning, "info": _log.info}[severity]
    write(f"alert_{notice}", alert=alert.name, subject=alert.subject, severity=alert.severity, message=alert.message)


def _webhook_body(record: AlertRecord, notice: Notice) -> dict[str, Any]:
    """Return the body of a webhook request."""
    return {
        # With the severity: an open alert that becomes critical is sent again, and a receiver must not drop it as a
        # repeat.
        "id": f"{record.number}-{notice}-{record.alert.severity}",
        "notice": notice,
        "since_us": record.since_us,
        "resolved_at_us": record.resolved_at_us,
        **asdict(record.alert),
    }


def _read(state: ProjectState) -> list[AlertRecord]:
    try:
        return [build_record(AlertRecord, item) for item in Documents(state.database, _KIND).get(_NAME) or []]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError("alerts", "are corrupt in the database", fix="restore the database from a backup") from error
