"""``traceparent`` as OpenTelemetry's own propagator reads it; what is malformed is ignored."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from skewless.contract.trace_context import TraceContext, parse_traceparent

HEX = "0123456789abcdef"
VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def oracle(text: str) -> TraceContext | None:
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    found = trace.get_current_span(context).get_span_context()
    return TraceContext(found.trace_id, found.span_id, found.trace_flags.sampled) if found.is_valid else None


def part(n: int) -> st.SearchStrategy[str]:
    """Return hexadecimal numbers of n digits, with some that are all 0 or f, or not a number."""
    odd = st.sampled_from(["0" * n, "f" * n, "F" * n, "0" * (n - 1), "g" * n, " " * n, "+" + "1" * (n - 1)])
    return st.text(HEX, min_size=n, max_size=n) | odd


headers = st.builds("-".join, st.tuples(part(2), part(32), part(16), part(2)))


@given(headers | st.builds(lambda head, rest: f"{head}{rest}", headers, st.text("-0af ", max_size=4)))
@example(VALID)
@example(VALID.replace("00-", "cc-", 1) + "-later")
@example(VALID.replace("00-", "ff-", 1))
@example(f"{VALID}-later")
@example(VALID.upper())
@example("")
def test_a_header_means_the_same_to_opentelemetry(text: str) -> None:
    assert parse_traceparent(text.strip(" ").encode()) == oracle(text)  # HTTP strips the spaces around a value


@given(st.binary(max_size=80))
def test_no_bytes_are_an_error(value: bytes) -> None:
    parsed = parse_traceparent(value)
    assert parsed is None or parse_traceparent(parsed.header()) == parsed


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_context_survives_its_header(trace_id: int, span_id: int, is_sampled: bool) -> None:  # noqa: FBT001
    context = TraceContext(trace_id, span_id, is_sampled)
    assert parse_traceparent(context.header()) == context
