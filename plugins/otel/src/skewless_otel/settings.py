"""The standard variables of OpenTelemetry; a value that the standard does not allow is logged and ignored, as it says.

Nothing here imports OpenTelemetry.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.version import __version__

Signal = Literal["traces", "metrics"]
_SAMPLERS = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}
_PARENT_BASED = "parentbased_"
_DEFAULT_SAMPLER = "parentbased_always_on"
_ENDPOINT = "http://localhost:4318"
_PROTOCOL = "http/protobuf"
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class OtlpTarget:
    """Where the data of a signal is sent.

    Args:
        headers: may have a credential; never logged.
        timeout_s: of a batch, with all its attempts.
        certificate: file of the authorities that may sign the collector's certificate; None: those of the system.
        client_certificate: file of our own certificate; None: none.
        client_key: file of its key.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    is_compressed: bool = False
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which traces are recorded.

    Args:
        rate: share of the traces that begin here, 0 to 1.
        follows_parent: whether the caller's decision holds for a request that is part of a trace.
    """

    rate: float = 1.0
    follows_parent: bool = True

    @property
    def bound(self) -> int:
        """Lowest 64 bits of a trace id from which on it is not recorded; OpenTelemetry's rule, equal in all processes.

        >>> Sampling(rate=0.5).bound == 2**63
        True
        """
        return round(self.rate * 2**64)


@dataclass(frozen=True, kw_only=True)
class OtelSettings:
    """The settings of a process.

    Args:
        traces: where spans are sent; None: tracing is off.
        metrics: where metrics are sent; None: not sent.
        reads_traceparent: whether callers' traces are continued.
        resource: attributes of this process.
        delay_s: longest wait of a finished span.
        queue_spans: spans that may wait; more are dropped.
        batch_spans: spans sent together.
        interval_s: between two reports of the metrics.
    """

    traces: OtlpTarget | None = None
    metrics: OtlpTarget | None = None
    sampling: Sampling = Sampling()
    reads_traceparent: bool = True
    resource: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 5.0
    queue_spans: int = 2_048
    batch_spans: int = 512
    interval_s: float = 60.0


def read_otel_settings(variables: Mapping[str, str] = os.environ) -> OtelSettings:
    """Return the settings that the environment has.

    Traces are sent if ``OTEL_TRACES_EXPORTER`` is ``otlp``, or is not set and an endpoint is; metrics only if
    ``OTEL_METRICS_EXPORTER`` is ``otlp``, because Prometheus reads the same series.

    >>> read_otel_settings({}).traces is None
    True
    >>> read_otel_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}).traces.url
    'http://collector:4318/v1/traces'
    """
    given = _Variables(variables)
    if given.word("OTEL_SDK_DISABLED") == "true":
        return OtelSettings()
    has_endpoint = bool(given.otlp("traces", "ENDPOINT"))
    return OtelSettings(
        traces=_target(given, "traces") if _is_on(given, "traces", "otlp" if has_endpoint else "none") else None,
        metrics=_target(given, "metrics") if _is_on(given, "metrics", "none") else None,
        sampling=_sampling(given),
        reads_traceparent="tracecontext" in given.words("OTEL_PROPAGATORS", "tracecontext,baggage"),
        resource=_resource(given),
        delay_s=given.number("OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1_000,
        queue_spans=int(given.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)),
        batch_spans=int(given.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)),
        interval_s=given.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1_000,
    )


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


class _Variables:
    """Reads variables; an empty one counts as not set."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str) -> str:
        return self._variables.get(name, "").strip()

    def word(self, name: str, default: str = "") -> str:
        return self.text(name).lower() or default

    def words(self, name: str, default: str) -> list[str]:
        return [word.strip() for word in self.word(name, default).split(",")]

    def number(self, name: str, default: float, is_valid: Callable[[float], bool] = _is_positive) -> float:
        """Return a number, by default a positive one."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan  # which is in no range
        if is_valid(value):
            return value
        self.ignore(name, text)
        return default

    def otlp(self, signal: Signal, name: str) -> str:
        """Return a variable of the exporter; one for the signal alone comes before the general one."""
        return self.text(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") or self.text(f"OTEL_EXPORTER_OTLP_{name}")

    def pairs(self, name: str, text: str) -> dict[str, str]:
        """Return the pairs ``key=value`` of a text with percent-encoded values; others are ignored."""
        pairs = {}
        for item in filter(None, (item.strip() for item in text.split(","))):
            key, separator, value = item.partition("=")
            if separator and key.strip():
                pairs[unquote(key.strip())] = unquote(value.strip())
            else:
                self.ignore(name, "***")  # it may be a part of a credential
        return pairs

    def ignore(self, name: str, value: str) -> None:
        _log.warning("otel_variable_ignored", variable=name, value=value)


def _is_on(given: _Variables, signal: Signal, default: str) -> bool:
    name = f"OTEL_{signal.upper()}_EXPORTER"
    exporters = given.words(name, default)
    for exporter in exporters:
        if exporter not in {"otlp", "none"}:
            given.ignore(name, exporter)
    return "otlp" in exporters


def _target(given: _Variables, signal: Signal) -> OtlpTarget:
    own_url = given.text(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    url = own_url or f"{(given.otlp(signal, 'ENDPOINT') or _ENDPOINT).rstrip('/')}/v1/{signal}"
    protocol = given.otlp(signal, "PROTOCOL")
    if protocol not in {"", _PROTOCOL}:
        given.ignore("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    compression = given.otlp(signal, "COMPRESSION").lower()
    if compression not in {"", "none", "gzip"}:
        given.ignore("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    own_timeout = f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT"
    # Milliseconds, as the specification says; Python's SDK takes it for seconds.
    return OtlpTarget(
        url=url,
        headers=given.pairs("OTEL_EXPORTER_OTLP_HEADERS", given.otlp(signal, "HEADERS")),
        timeout_s=given.number(own_timeout if given.text(own_timeout) else "OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)
        / 1_000,
        is_compressed=compression == "gzip",
        certificate=given.otlp(signal, "CERTIFICATE") or None,
        client_certificate=given.otlp(signal, "CLIENT_CERTIFICATE") or None,
        client_key=given.otlp(signal, "CLIENT_KEY") or None,
    )


def _sampling(given: _Variables) -> Sampling:
    name = given.word("OTEL_TRACES_SAMPLER", _DEFAULT_SAMPLER)
    if name.removeprefix(_PARENT_BASED) not in _SAMPLERS:
        given.ignore("OTEL_TRACES_SAMPLER", name)
        name = _DEFAULT_SAMPLER
    rate = _SAMPLERS[name.removeprefix(_PARENT_BASED)]
    if rate is None:
        rate = given.number("OTEL_TRACES_SAMPLER_ARG", 1.0, lambda share: 0 <= share <= 1)
    return Sampling(rate=rate, follows_parent=name.startswith(_PARENT_BASED))


def _resource(given: _Variables) -> dict[str, str]:
    resource = {
        "service.name": "skewless",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "telemetry.sdk.language": "python",
        **given.pairs("OTEL_RESOURCE_ATTRIBUTES", given.text("OTEL_RESOURCE_ATTRIBUTES")),
    }
    name = given.text("OTEL_SERVICE_NAME")
    return resource | ({"service.name": name} if name else {})
