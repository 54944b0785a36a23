"""The common part of the prediction routes of both protocols, and the options of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from skewless.contract.clock import Clock, parse_time
from skewless.contract.errors import RequestError
from skewless.serving.access.gate import Access
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.routing import NO_OPTIONS, Options

LIMIT = 2**53  # of ages and time limits, exclusive
_MILLISECOND = 1_000
_SECOND = 1_000_000
_YEAR_1_US = -62_135_596_800_000_000  # start of year 1, microseconds: replies give the time in ISO 8601


@dataclass(kw_only=True, eq=False)
class PredictionRoute:
    """A route that predicts.

    Args:
        deadline_s: timeout of requests that set none, seconds; 0: none.
    """

    models: ModelTable
    predictor: Predictor
    access: Access
    metrics: Metrics
    clock: Clock
    deadline_s: float = 0.0

    def __post_init__(self) -> None:
        """Look up the series once, because a look-up costs as much as several observations."""
        self._parse, self._encode = self.metrics.stage("parse"), self.metrics.stage("encode")

    def read_options(self, values: Mapping[str, object], waited_s: float, timeout: str = "timeout_us") -> Options:
        """Return the options of a request that has waited some seconds; see ``read_options``."""
        return read_options(
            values,
            now_us=self.clock.now_us(),
            loop_s=asyncio.get_running_loop().time() - waited_s,
            deadline_s=self.deadline_s,
            timeout=timeout,
        )


def read_options(
    values: Mapping[str, object], *, now_us: int, loop_s: float, deadline_s: float = 0.0, timeout: str = "timeout_us"
) -> Options:
    """Return the options of a request.

    Args:
        values: ``as_of`` (microseconds or ISO 8601), ``max_feature_age_s``, ``contributions`` and the time limit are
            read; null means absent.
        now_us: the current time, microseconds.
        loop_s: the current time on the event loop's clock, seconds; deadlines use this clock.
        deadline_s: timeout if the request sets none, seconds; 0: none.
        timeout: field name of the time limit, which is in microseconds.

    Raises:
        RequestError: a value is invalid, or ``as_of`` is in the future.
    """
    as_of, age, limit = values.get("as_of"), values.get("max_feature_age_s"), values.get(timeout)
    contributions = values.get("contributions")
    if as_of is age is limit is None and not contributions and not deadline_s:
        return NO_OPTIONS
    seconds = deadline_s if limit is None else _parse_positive(timeout, limit, "microseconds") / _SECOND
    return Options(
        as_of=None if as_of is None else _parse_as_of(as_of, now_us),
        max_age_us=None
        if age is None
        else max(round(_parse_positive("max_feature_age_s", age, "seconds") * _SECOND), 1),
        deadline=loop_s + seconds if seconds else None,
        contributions=bool(contributions),
    )


def _parse_as_of(value: object, now_us: int) -> int:
    as_of_us = value
    if isinstance(value, str):
        parsed = parse_time(value)
        if parsed is not None and not parsed[1]:
            raise _value_error("as_of", value, "add the zone, for example 'Z'")
        as_of_us = None if parsed is None else parsed[0]
    if type(as_of_us) is not int or not _YEAR_1_US <= as_of_us < 2**63:
        raise _value_error("as_of", value, "send an ISO 8601 time, or microseconds since the epoch")
    if as_of_us > now_us:
        raise RequestError("request field 'as_of'", "is in the future", value=value, fix="omit it for the current time")
    # Every evaluation time is a whole millisecond (SEMANTICS 1.2).
    return as_of_us // _MILLISECOND * _MILLISECOND


def _parse_positive(name: str, value: object, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LIMIT:
        raise _value_error(name, value, f"send a number of {unit} greater than 0")
    return float(value)


def _value_error(name: str, value: object, fix: str) -> RequestError:
    return RequestError(f"request field {name!r}", "has an invalid value", value=value, fix=fix)
