"""Every error a user can meet, in one tree.

::

    SkewlessError                  exit 1
    ├── DefinitionError        2   a definition, spec or setting that cannot be right
    ├── StalePlanError         3   the applied plan is not the one that the work needs
    ├── SourceError            4   a source file is missing, broken or has another shape
    ├── GateError              5   a validation or promotion gate said no
    ├── RequestError           6   a prediction request that cannot be answered
    │   └── AccessError            no API key, or none that is known
    │       ├── ScopeError         the key does not allow this
    │       └── RateError          the key has asked too often
    ├── StoreError             7   the store or the disk refused or is away
    ├── PackageError           8   a model package is missing, altered or not certified
    ├── ConflictError          9   somebody else moved the thing first
    ├── PlaceError            10   a port, socket or folder of this machine is not usable
    ├── BusyError             11   the server has as much to do as it can
    └── DeadlineError         12   the time that a caller gave was not enough

An error names the thing, the problem, the value and the fix; it is shown as one sentence each. However long a value or
a name from outside is, an error is short: the middle of long parts is left out.
"""

from __future__ import annotations

from typing import ClassVar

from skewless.contract.render import render_value, shorten

_THING_CHARS, _PROBLEM_CHARS, _FIX_CHARS = 400, 2_000, 2_000
_INT64 = range(-(2**63), 2**63)


class SkewlessError(Exception):
    """A failure that a user can act on.

    Args:
        thing: what it is about, by its name, for example ``view 'weather'``.
        problem: what is wrong with it.
        fix: what to do about it.
        value: the offending value, where there is one.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, thing: str, problem: str, *, fix: str, value: object = None) -> None:
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
        """Return the message in parts, ready for JSON."""
        parts: dict[str, object] = {
            "kind": self.kind,
            "thing": self.thing,
            "problem": self.problem,
            "fix": self.fix,
        }
        if self.value is not None:
            parts["value"] = _plain(self.value)
        return parts


def _plain(value: object) -> str | int:
    """Return a value as any JSON can hold it."""
    if isinstance(value, str):
        return shorten(value)
    return value if isinstance(value, int) and value in _INT64 else render_value(value)


class DefinitionError(SkewlessError):
    """A definition, spec or setting cannot be right."""

    exit_code = 2
    kind = "definition"


class StalePlanError(SkewlessError):
    """The applied plan is not the one that the work needs."""

    exit_code = 3
    kind = "stale_plan"


class SourceError(SkewlessError):
    """A source is missing, broken or has another shape than declared."""

    exit_code = 4
    kind = "source"


class GateError(SkewlessError):
    """A validation or promotion gate said no; nothing was changed."""

    exit_code = 5
    kind = "gate"


class RequestError(SkewlessError):
    """A prediction request cannot be answered as it is."""

    exit_code = 6
    kind = "request"


class AccessError(RequestError):
    """No API key was sent, or none that is valid."""

    kind = "access"


class ScopeError(AccessError):
    """The API key is valid, but does not allow this."""

    kind = "scope"


class RateError(AccessError):
    """The API key has asked more often than it may.

    Args:
        wait_s: whole seconds after which one more request is answered.
    """

    kind = "rate"

    def __init__(self, thing: str, problem: str, *, fix: str, value: object = None, wait_s: int = 1) -> None:
        super().__init__(thing, problem, fix=fix, value=value)
        self.wait_s = wait_s


class StoreError(SkewlessError):
    """The online store or the disk refused, or is away."""

    exit_code = 7
    kind = "store"


class PackageError(SkewlessError):
    """A model package is missing, altered, or not certified here."""

    exit_code = 8
    kind = "package"


class ConflictError(SkewlessError):
    """Somebody else moved the thing first."""

    exit_code = 9
    kind = "conflict"


class PlaceError(SkewlessError):
    """A port, socket or folder of this machine is not usable."""

    exit_code = 10
    kind = "place"


class BusyError(SkewlessError):
    """The server has as much to do as it can; the request was not begun."""

    exit_code = 11
    kind = "busy"


class DeadlineError(SkewlessError):
    """The time that a caller gave was not enough."""

    exit_code = 12
    kind = "deadline"
