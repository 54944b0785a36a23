"""How a request wants to be answered, from the plain values that it sends."""

from __future__ import annotations

from collections.abc import Mapping

from skewless.contract.clock import parse_time
from skewless.contract.errors import RequestError
from skewless.serving.prediction.scoring_request import NO_OPTIONS, Options

LIMIT = 2**53  # of ages and time limits, exclusive
_MILLISECOND = 1_000
_SECOND = 1_000_000
_FIRST = -62_135_596_800_000_000  # of year 1: replies name the moment in ISO 8601


def read_options(
    values: Mapping[str, object], *, now_us: int, loop_s: float, deadline_s: float = 0.0, timeout: str = "timeout_us"
) -> Options:
    """Return the options of a request.

    Args:
        values: of these, ``as_of`` (microseconds or ISO 8601), ``max_feature_age_s``, ``contributions`` and the time
            limit are read; null is as good as nothing.
        now_us: the clock, microseconds.
        loop_s: the event loop's clock, on which deadlines are.
        deadline_s: time limit where the request sets none, seconds; 0: none.
        timeout: name of the time limit, which is in microseconds.

    Raises:
        RequestError: a value is not what it should be, or ``as_of`` lies ahead.
    """
    as_of, age, limit = values.get("as_of"), values.get("max_feature_age_s"), values.get(timeout)
    contributions = values.get("contributions")
    if as_of is age is limit is None and not contributions and not deadline_s:
        return NO_OPTIONS
    seconds = deadline_s if limit is None else _positive(timeout, limit, "microseconds") / _SECOND
    return Options(
        as_of=None if as_of is None else _moment(as_of, now_us),
        max_age_us=None if age is None else max(round(_positive("max_feature_age_s", age, "seconds") * _SECOND), 1),
        deadline=loop_s + seconds if seconds else None,
        contributions=bool(contributions),
    )


def _moment(value: object, now_us: int) -> int:
    moment = value
    if isinstance(value, str):
        found = parse_time(value)
        if found is not None and not found[1]:
            raise _wrong("as_of", value, "add the zone, for example 'Z'")
        moment = None if found is None else found[0]
    if type(moment) is not int or not _FIRST <= moment < 2**63:
        raise _wrong("as_of", value, "send an ISO 8601 time, or microseconds since the epoch")
    if moment > now_us:
        raise RequestError("request field 'as_of'", "lies ahead", value=value, fix="leave it out for the present")
    return moment // _MILLISECOND * _MILLISECOND


def _positive(name: str, value: object, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LIMIT:
        raise _wrong(name, value, f"send a number of {unit} above 0")
    return float(value)


def _wrong(name: str, value: object, fix: str) -> RequestError:
    return RequestError(f"request field {name!r}", "is not what it should be", value=value, fix=fix)
