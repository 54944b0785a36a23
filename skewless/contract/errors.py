"""The tree of all errors that a user can see.

::

    SkewlessError                  exit 1
    ├── DefinitionError        2   a definition, spec or setting is invalid
    ├── StalePlanError         3   the applied plan is missing or out of date
    ├── SourceError            4   a source is missing, corrupt or has other columns
    ├── GateError              5   a validation or promotion gate failed
    ├── RequestError           6   a prediction request is invalid
    │   └── AccessError            the API key or token is missing or invalid
    │       ├── ScopeError         it lacks the scope, or is not for the model
    │       └── RateError          its rate limit is exceeded
    ├── StoreError             7   the store or the disk failed or is unreachable
    ├── PackageError           8   a model package is missing, altered or not certified
    ├── ConflictError          9   another process changed it first
    ├── PlaceError            10   a port, socket or folder of this machine is not usable
    ├── BusyError             11   the server is at its limit
    └── DeadlineError         12   the deadline of a request has passed

An error names the thing, the problem, the value and the fix. It is short, however long a value or
a name from outside is: long parts are shortened in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from skewless.contract.render import render_value, shorten

_THING_CHARS, _PROBLEM_CHARS, _FIX_CHARS = 400, 2_000, 2_000
_INT64 = range(-(2**63), 2**63)


class SkewlessError(Exception):
    """A failure that a user can act on.

    Args:
        thing: kind and name, for example ``view 'weather'``.
        problem: a short clause without a subject, for example ``is missing``.
        fix: an instruction for the reader.
        value: the wrong value, if any.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"
    _kinds: ClassVar[dict[str, type[SkewlessError]]] = {}

    def __init_subclass__(cls, *, kind: str = "", exit_code: int = 0) -> None:
        """Set the kind and the exit code; without them, a class has those of its base."""
        if kind:
            cls.kind, cls.exit_code = kind, exit_code or cls.exit_code
            cls._kinds[kind] = cls

    def __init__(self, thing: str, problem: str, *, fix: str, value: object = None) -> None:
        # The parts may contain values from outside, of any length.
        self.thing = shorten(thing, _THING_CHARS)
        self.problem = shorten(problem, _PROBLEM_CHARS)
        self.fix = shorten(fix, _FIX_CHARS)
        self.value = value
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the whole message on one line."""
        return f"{self.cause()}. Fix: {self.fix}"

    def cause(self) -> str:
        """Return the message without the fix."""
        got = "" if self.value is None else f" (got {render_value(self.value)})"
        return f"{self.thing}: {self.problem.rstrip('.')}{got}"

    def as_dict(self) -> dict[str, object]:
        """Return the parts of the message as JSON values."""
        parts: dict[str, object] = {
            "kind": self.kind,
            "thing": self.thing,
            "problem": self.problem,
            "fix": self.fix,
        }
        if self.value is not None:
            parts["value"] = _json_value(self.value)
        return parts

    @staticmethod
    def from_dict(parts: Mapping[str, Any]) -> SkewlessError:
        """Return the error with the parts that ``as_dict`` returned, in another process perhaps."""
        kind = SkewlessError._kinds.get(parts["kind"], SkewlessError)
        return kind(parts["thing"], parts["problem"], fix=parts["fix"], value=parts.get("value"))


def _json_value(value: object) -> str | int:
    """Return a value that every JSON parser can read: integers beyond 64 bits become text."""
    if isinstance(value, str):
        return shorten(value)
    return value if isinstance(value, int) and value in _INT64 else render_value(value)


class DefinitionError(SkewlessError, exit_code=2, kind="definition"):
    """A definition, spec or setting is invalid."""


class StalePlanError(SkewlessError, exit_code=3, kind="stale_plan"):
    """The applied plan is missing or out of date."""


class SourceError(SkewlessError, exit_code=4, kind="source"):
    """A source is missing, corrupt or has other columns than declared."""


class GateError(SkewlessError, exit_code=5, kind="gate"):
    """A validation or promotion gate failed; nothing was changed."""


class RequestError(SkewlessError, exit_code=6, kind="request"):
    """A prediction request is invalid."""


class AccessError(RequestError, kind="access"):
    """The API key or token is missing or invalid."""


class ScopeError(AccessError, kind="scope"):
    """The API key or token is valid, but lacks the scope, or is not for the model."""


class RateError(AccessError, kind="rate"):
    """The API key or the subject of the token has exceeded its rate limit.

    Args:
        wait_s: whole seconds until the next request is accepted.
    """

    def __init__(self, thing: str, problem: str, *, fix: str, value: object = None, wait_s: int = 1) -> None:
        super().__init__(thing, problem, fix=fix, value=value)
        self.wait_s = wait_s


class StoreError(SkewlessError, exit_code=7, kind="store"):
    """The online store or the disk failed, or is unreachable."""


class PackageError(SkewlessError, exit_code=8, kind="package"):
    """A model package is missing, altered, or not certified here."""


class ConflictError(SkewlessError, exit_code=9, kind="conflict"):
    """Another process changed the thing first."""


class PlaceError(SkewlessError, exit_code=10, kind="place"):
    """A port, socket or folder of this machine is not usable."""


class BusyError(SkewlessError, exit_code=11, kind="busy"):
    """The server is at its limit; the request was not started."""


class DeadlineError(SkewlessError, exit_code=12, kind="deadline"):
    """The deadline of a request has passed."""
