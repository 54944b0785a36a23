"""Alerts: each is logged and sent to a webhook once, and stays open until it is resolved."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from skewless.contract.clock import from_us
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.alerts.webhook import Webhook
from skewless.infra.storage.documents import Documents, Json
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.telemetry.logger import EventLogger

Severity = Literal["info", "warning", "critical"]
Notice = Literal["raised", "resolved"]
_MOST_RESOLVED = 1_000
_KIND, _NAME = "alerts", "project"
_DELIVERY = "alert_delivery"
_log = EventLogger()


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
        with _edit_records(self._state) as editor:
            is_new = editor.raise_alert(alert, owed=self._webhook is not None)
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
        with _edit_records(self._state) as editor:
            closed = editor.resolve_alert((name, subject), at_us, owed=self._webhook is not None)
        if closed is not None:
            _log_notice(closed, "resolved")
            self._start_sender()
        return closed is not None

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
                    with _edit_records(self._state) as editor:
                        editor.mark_delivered(record, notice)


@contextmanager
def _edit_records(state: ProjectState) -> Iterator[_RecordEditor]:
    """Yield the stored alerts for editing, in a transaction; if the block raises, nothing changes."""
    with state.database.transaction():
        editor = _RecordEditor(_read(state))
        yield editor
        if editor.changed:
            Documents(state.database, _KIND).put(_NAME, _encode_records(editor.items))


class _RecordEditor:
    """The stored alerts, oldest first, while a process edits them."""

    def __init__(self, items: list[AlertRecord]) -> None:
        self.items = items
        self.changed = False

    def raise_alert(self, alert: Alert, *, owed: bool) -> bool:
        """Store an alert; return whether it must be sent."""
        notices: tuple[Notice, ...] = ("raised",) if owed else ()
        last = self._open(alert.key)
        if last is None:
            number = max((item.number for item in self.items), default=0) + 1
            self._put(AlertRecord(number=number, alert=alert, since_us=alert.at_us, owed=notices))
            return True
        severity_changed = last.alert.severity != alert.severity
        self._put(replace(last, alert=alert, owed=_add_notices(last.owed, notices) if severity_changed else last.owed))
        return severity_changed

    def resolve_alert(self, key: tuple[str, str], at_us: int, *, owed: bool) -> Alert | None:
        """Close an open alert and return it."""
        last = self._open(key)
        if last is None:
            return None
        self._put(replace(last, resolved_at_us=at_us, owed=_add_notices(last.owed, ("resolved",) if owed else ())))
        return last.alert

    def mark_delivered(self, sent: AlertRecord, notice: Notice) -> None:
        """Remove a notice that the webhook has accepted; with another severity by now, it must be sent again."""
        for item in self.items:
            if item.number == sent.number and item.alert.severity == sent.alert.severity:
                self._put(replace(item, owed=tuple(other for other in item.owed if other != notice)))

    def _open(self, key: tuple[str, str]) -> AlertRecord | None:
        return next((item for item in self.items if item.is_open and item.alert.key == key), None)

    def _put(self, item: AlertRecord) -> None:
        others = [other for other in self.items if other.number != item.number]
        self.items = sorted([*others, item], key=lambda record: record.number)
        self.changed = True


def open_alerts(state: ProjectState) -> list[Alert]:
    """Return the open alerts.

    Raises:
        StoreError: the database is unavailable, or the stored alerts are corrupt.
    """
    return [item.alert for item in _read(state) if item.is_open]


def _add_notices(owed: tuple[Notice, ...], more: Iterable[Notice]) -> tuple[Notice, ...]:
    return (*owed, *(notice for notice in more if notice not in owed))


def _log_notice(alert: Alert, notice: Notice) -> None:
    write = {"critical": _log.error, "warning": _log.warning}.get(alert.severity, _log.info)
    if notice == "resolved":
        write = _log.info
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


def _encode_records(items: list[AlertRecord]) -> Json:
    # A record with unsent notices stays, however old: the webhook would never see its end.
    resolved = [item.number for item in items if not item.is_open and not item.owed]
    expired = set(resolved[:-_MOST_RESOLVED])
    return [asdict(item) for item in items if item.number not in expired]


def _read(state: ProjectState) -> list[AlertRecord]:
    try:
        return [_decode_record(item) for item in Documents(state.database, _KIND).get(_NAME) or []]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError("alerts", "are corrupt in the database", fix="restore the database from a backup") from error


def _decode_record(item: dict[str, Any]) -> AlertRecord:
    return AlertRecord(**{**item, "alert": Alert(**item["alert"]), "owed": tuple(item["owed"])})
