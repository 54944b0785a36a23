"""``skewless stream``: events from streams into the accepted log and the window states."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output, records_table
from skewless.contract.render import count_text
from skewless.operations.readable import time_text

if TYPE_CHECKING:
    from skewless.infra.streams.source_counts import SourceCounts

Sources = Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help="Event sources; default: all.")]
Replay = Annotated[
    Path | None,
    typer.Option("--replay", metavar="FILES", help="Read Parquet files (a folder or a glob) instead of the stream."),
]
Speed = Annotated[
    float | None,
    typer.Option("--speed", metavar="X", min=0.0, help="With --replay: factor of real time; default: no pauses."),
]
Idle = Annotated[bool, typer.Option("--until-idle", help="Stop when the stream has no more events.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port", metavar="PORT", min=0, max=65535, help="Serve Prometheus metrics on this port, on loopback."
    ),
]


def stream(
    sources: Sources = None,
    *,
    repo: Repo = Path(),
    replay: Replay = None,
    speed: Speed = None,
    until_idle: Idle = False,
    metrics_port: MetricsPort = None,
    as_json: Json = False,
) -> None:
    """Ingest events into the log and the online store, until SIGTERM or Ctrl-C.

    The process can be killed at any time: no event is lost or counted twice.
    """
    with command_output(as_json=as_json, log_level="warning" if until_idle else "info") as output:
        project = open_project(output, repo)
        is_started = threading.Event()

        def on_counts(counts: Sequence[SourceCounts]) -> None:
            if not (as_json or is_started.is_set()):
                names = ", ".join(item.source for item in counts)
                typer.echo(f"ingesting events of {names}, stop with Ctrl-C", err=True)
            is_started.set()
            show(" | ".join(_line(item) for item in counts))

        with output.line() as show, _stop_on_signals() as stop:
            counts = project.stream(
                sources or (),
                replay=replay,
                speed=speed,
                until_idle=until_idle,
                metrics_port=metrics_port,
                stop=stop,
                on_counts=on_counts,
            )
        bodies = [item.as_dict() for item in counts]
        output.show({"sources": bodies}, records_table("events", tuple(bodies[0]), bodies))


def _line(counts: SourceCounts) -> str:
    """Return the live line of one source."""
    lag = "?" if counts.lag is None else f"{counts.lag:,}"
    text = (
        f"{counts.source}: {count_text(counts.accepted, 'event')}, {counts.rate():,.0f}/s, lag {lag}, "
        f"watermark {time_text(counts.watermark_us) or '-'}, "
        f"{counts.late:,} late, {counts.duplicates:,} duplicate, {counts.rejected:,} quarantined"
    )
    return text if counts.trouble is None else f"{text}; waiting: {counts.trouble}"


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; the old handlers return at the end."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
