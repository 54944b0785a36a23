"""Alerts: told once to the log and a webhook, kept until they are resolved."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import structlog

from skewless.contract.clock import from_us
from skewless.contract.errors import StoreError
from skewless.infra.alerts.webhook import Webhook
from skewless.infra.storage.durable import hold_lock, replace_durable

Severity = Literal["info", "warning", "critical"]
Notice = Literal["raised", "resolved"]
_MOST_RESOLVED = 1_000
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that a person should know.

    Args:
        name: its kind, for example ``drift``; with ``subject`` it says which alert it is.
        subject: what it is about, for example a model or a view.
        message: what is wrong, in a sentence.
        at_us: when it was found, UTC microseconds.
        evidence: what it rests on, as plain values.
    """

    name: str
    severity: Severity
    subject: str
    message: str
    at_us: int
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Return what tells one alert from another."""
        return self.name, self.subject


@dataclass(frozen=True, kw_only=True)
class AlertRecord:
    """An alert as it is kept.

    Args:
        number: 1 for the project's first alert.
        alert: as it was last sent.
        since_us: when it was first sent.
        resolved_at_us: when it was over; None: it is open.
        owed: notices that the webhook has not taken yet.
    """

    number: int
    alert: Alert
    since_us: int
    resolved_at_us: int | None = None
    owed: tuple[Notice, ...] = ()

    @property
    def is_open(self) -> bool:
        """Say whether it is not resolved."""
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
    """The alerts of one project; any number of processes may send at once.

    An alert that is open already is not told again, unless its severity has changed. What a webhook does not take is
    kept and offered again with the next alert; a receiver may see a notice twice, with the same ``id``.

    Args:
        state: the project's state folder.
        webhook: URL that takes each notice as JSON (setting ``alert_webhook``); None: there is none.
    """

    def __init__(self, state: Path, webhook: str | None = None) -> None:
        self._folder = state / "alerts"
        self._webhook = None if webhook is None else Webhook(webhook)
        self._turn = threading.Lock()
        self._wanted = False
        self._courier: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return the alerts; leaving the block closes them."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def send(self, alert: Alert) -> bool:
        """Keep an alert, and tell of it if it is new; does not wait for the webhook. Return whether it was told.

        Raises:
            StoreError: the disk refused, or the kept alerts are damaged.
        """
        with _book_of(self._folder) as book:
            told = book.raised(alert, owed=self._webhook is not None)
        if told:
            _tell(alert, "raised")
            self._deliver()
        return told

    def resolve(self, name: str, subject: str, at_us: int) -> bool:
        """Close the open alert of this name and subject; return whether there was one.

        Raises:
            StoreError: as ``send``.
        """
        if not any(alert.key == (name, subject) for alert in open_alerts(self._folder.parent)):
            return False
        with _book_of(self._folder) as book:
            closed = book.resolved((name, subject), at_us, owed=self._webhook is not None)
        if closed is not None:
            _tell(closed, "resolved")
            self._deliver()
        return closed is not None

    def kept(self) -> list[AlertRecord]:
        """Return all open alerts and the newest resolved ones, oldest first.

        Raises:
            StoreError: the file is damaged.
        """
        return _read(self._folder)

    def close(self, seconds: float = 10.0) -> None:
        """Wait for the webhook, but not longer than this; what it has not taken stays owed."""
        courier = self._courier
        if courier is not None:
            courier.join(seconds)

    def _deliver(self) -> None:
        """Let a thread offer what is owed to the webhook."""
        if self._webhook is None:
            return
        with self._turn:
            self._wanted = True
            if self._courier is None:
                self._courier = threading.Thread(target=self._carry, args=(self._webhook,), daemon=True)
                self._courier.start()

    def _carry(self, webhook: Webhook) -> None:
        while True:
            with self._turn:
                if not self._wanted:
                    self._courier = None
                    return
                self._wanted = False
            with hold_lock(self._folder / "delivery.lock"):
                self._offer(webhook)

    def _offer(self, webhook: Webhook) -> None:
        """Send what is owed, in order, up to the first notice that the webhook does not take."""
        for kept in _read(self._folder):
            for notice in kept.owed:
                if not webhook.post(_body(kept, notice)):
                    return
                with _book_of(self._folder) as book:
                    book.delivered(kept.number, notice)


@contextmanager
def _book_of(folder: Path) -> Iterator[_Book]:
    """Yield the kept alerts to be changed; nobody else changes them meanwhile, and an error changes nothing."""
    with hold_lock(folder / "alerts.lock"):
        book = _Book(_read(folder))
        yield book
        if book.changed:
            _write(folder, book.items)


class _Book:
    """The kept alerts while they are changed, oldest first."""

    def __init__(self, items: list[AlertRecord]) -> None:
        self.items = items
        self.changed = False

    def raised(self, alert: Alert, *, owed: bool) -> bool:
        """Keep an alert; return whether it is told."""
        notices: tuple[Notice, ...] = ("raised",) if owed else ()
        last = self._open(alert.key)
        if last is None:
            number = max((item.number for item in self.items), default=0) + 1
            self._put(AlertRecord(number=number, alert=alert, since_us=alert.at_us, owed=notices))
            return True
        told = last.alert.severity != alert.severity
        self._put(replace(last, alert=alert, owed=_with(last.owed, notices) if told else last.owed))
        return told

    def resolved(self, key: tuple[str, str], at_us: int, *, owed: bool) -> Alert | None:
        """Close an open alert and return it."""
        last = self._open(key)
        if last is None:
            return None
        self._put(replace(last, resolved_at_us=at_us, owed=_with(last.owed, ("resolved",) if owed else ())))
        return last.alert

    def delivered(self, number: int, notice: Notice) -> None:
        """Take a notice off what is owed."""
        for item in self.items:
            if item.number == number:
                self._put(replace(item, owed=tuple(one for one in item.owed if one != notice)))

    def _open(self, key: tuple[str, str]) -> AlertRecord | None:
        return next((item for item in self.items if item.is_open and item.alert.key == key), None)

    def _put(self, item: AlertRecord) -> None:
        others = [other for other in self.items if other.number != item.number]
        self.items = sorted([*others, item], key=lambda one: one.number)
        self.changed = True


def open_alerts(state: Path) -> list[Alert]:
    """Return the alerts that are not resolved; none where the file is damaged: for metrics, which never fail."""
    try:
        return [item.alert for item in _read(state / "alerts") if item.is_open]
    except StoreError:
        return []


def _with(owed: tuple[Notice, ...], more: Iterable[Notice]) -> tuple[Notice, ...]:
    return (*owed, *(notice for notice in more if notice not in owed))


def _tell(alert: Alert, notice: Notice) -> None:
    write = {"critical": _log.error, "warning": _log.warning}.get(alert.severity, _log.info)
    if notice == "resolved":
        write = _log.info
    write(f"alert_{notice}", alert=alert.name, subject=alert.subject, severity=alert.severity, message=alert.message)


def _body(kept: AlertRecord, notice: Notice) -> dict[str, Any]:
    """Return what the webhook is sent."""
    return {
        "id": f"{kept.number}-{notice}-{kept.alert.severity}",
        "notice": notice,
        "since_us": kept.since_us,
        "resolved_at_us": kept.resolved_at_us,
        **asdict(kept.alert),
    }


def _write(folder: Path, items: list[AlertRecord]) -> None:
    resolved = [item.number for item in items if not item.is_open and not item.owed]
    forgotten = set(resolved[:-_MOST_RESOLVED])
    body = [asdict(item) for item in items if item.number not in forgotten]
    replace_durable(folder / "alerts.json", json.dumps(body, indent=1).encode())


def _read(folder: Path) -> list[AlertRecord]:
    path = folder / "alerts.json"
    try:
        return [_kept(item) for item in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        fix = "restore the file, or move it away: its alerts are then forgotten"
        raise StoreError(f"file {path}", "does not hold alerts", fix=fix) from error


def _kept(item: dict[str, Any]) -> AlertRecord:
    return AlertRecord(**{**item, "alert": Alert(**item["alert"]), "owed": tuple(item["owed"])})
