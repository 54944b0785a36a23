"""A run of a job: its id, cause, state, inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

from skewless.contract.clock import from_us, to_us
from skewless.contract.errors import RequestError

State = Literal["running", "done", "failed", "refused", "cancelled", "lost"]
_ID = re.compile(r"(?P<job>[^@/+]+)@(?P<at>\d{8}T\d{6})(?:\.(?P<us>\d{6}))?Z(?:\+(?P<attempt>[1-9]\d{0,8}))?", re.ASCII)
_FORM = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, kw_only=True, order=True)
class RunId:
    """The id of a run: its job, its due time and the number of the attempt.

    Args:
        tick_us: when it was due or requested; microseconds of the project's clock.
        attempt: 1 for the first.

    >>> str(RunId(job="drift fraud", tick_us=1_000_000, attempt=2))
    'drift:fraud@19700101T000001Z+2'
    >>> RunId.parse("drift:fraud@19700101T000001Z+2").tick_us
    1000000
    """

    job: str
    tick_us: int
    attempt: int = 1

    def __str__(self) -> str:
        """Return the id as text."""
        due = from_us(self.tick_us)
        fraction = f".{due.microsecond:06d}" if due.microsecond else ""
        attempt = f"+{self.attempt}" if self.attempt > 1 else ""
        return f"{self.job.replace(' ', ':')}@{due:{_FORM}}{fraction}Z{attempt}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that a text holds.

        Raises:
            RequestError: the text is not the id of a run.
        """
        match = _ID.fullmatch(text)
        try:
            due = datetime.strptime(match["at"], _FORM).replace(tzinfo=UTC) if match else None
        except ValueError:
            due = None
        if match is None or due is None:
            raise RequestError("run", "is not the id of a run", value=text, fix="copy one from `skewless runs list`")
        tick_us = to_us(due) + int(match["us"] or 0)
        return cls(job=match["job"].replace(":", " "), tick_us=tick_us, attempt=int(match["attempt"] or 1))


@dataclass(frozen=True, kw_only=True)
class RunSpan:
    """When a run was, and how it ended; times are microseconds of the project's clock.

    Args:
        cause: why it started, as text.
        ended_us: None: it runs.
        error: the problem, in a sentence, or its beginning, a few hundred characters; None: there was none.
    """

    id: RunId
    cause: str
    started_us: int
    state: State = "running"
    ended_us: int | None = None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """Return its duration; None while it runs."""
        return None if self.ended_us is None else (self.ended_us - self.started_us) / 1e6


@dataclass(frozen=True, kw_only=True)
class Run(RunSpan):
    """One run, as the ledger records it.

    Args:
        token: fencing token of the scheduler that started it.
        inputs: plain JSON values.
        outputs: plain JSON values.
        log: the last log lines of its command, without secrets.
    """

    token: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        body = asdict(self)
        return body | {"id": str(self.id), "job": self.id.job, "attempt": self.id.attempt, "seconds": self.seconds}
