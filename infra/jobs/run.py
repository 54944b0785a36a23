"""A run of a job: what it is called, why it began, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

from skewless.contract.clock import from_us, to_us
from skewless.contract.errors import RequestError

State = Literal["running", "done", "failed", "refused", "cancelled", "lost"]
_ID = re.compile(r"(?P<job>[^@/+]+)@(?P<at>\d{8}T\d{6})(?:\.(?P<us>\d{6}))?Z(?:\+(?P<attempt>[1-9]\d*))?", re.ASCII)
_FORM = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, kw_only=True, order=True)
class RunId:
    """The job, the time it was due, and which attempt this is.

    Args:
        tick_us: when it was due, or was asked for; microseconds of the project's clock.
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
        """Return the name: it is that of a file, and is typed."""
        return f"{self.folder}@{self.stem}"

    @property
    def folder(self) -> str:
        """Return the job as one word."""
        return self.job.replace(" ", ":")

    @property
    def stem(self) -> str:
        """Return time and attempt."""
        moment = from_us(self.tick_us)
        broken = f".{moment.microsecond:06d}" if moment.microsecond else ""
        return f"{moment:{_FORM}}{broken}Z" + (f"+{self.attempt}" if self.attempt > 1 else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a name says.

        Raises:
            RequestError: it is no name of a run.
        """
        found = _ID.fullmatch(text)
        try:
            whole = datetime.strptime(found["at"], _FORM).replace(tzinfo=UTC) if found else None
        except ValueError:
            whole = None
        if found is None or whole is None:
            raise RequestError("run", "is not the id of a run", value=text, fix="copy one from `skewless runs list`")
        tick_us = to_us(whole) + int(found["us"] or 0)
        return cls(job=found["job"].replace(":", " "), tick_us=tick_us, attempt=int(found["attempt"] or 1))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, as the ledger has it; times are microseconds of the project's clock.

    Args:
        cause: why it began, in words.
        token: fencing token of the scheduler that began it.
        inputs: what it was given, plain JSON values.
        outputs: what it answered, plain JSON values.
        error: what went wrong, in a sentence.
    """

    id: RunId
    cause: str
    token: int
    started_us: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    state: State = "running"
    ended_us: int | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.ended_us is None else (self.ended_us - self.started_us) / 1e6

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        body = asdict(self)
        return body | {"id": str(self.id), "job": self.id.job, "attempt": self.id.attempt, "seconds": self.seconds}
