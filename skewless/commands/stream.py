"""``skewless stream``: events to the accepted log and to the online states, until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from skewless.infra.streams.source_counts import SourceCounts

Sources = Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Event sources; none: all.")]
Replay = Annotated[
    Path | None,
    typer.Option(
        "--replay", metavar="FILES", help="Read Parquet files, a folder or a glob as if they were the stream."
    ),
]
Speed = Annotated[
    float | None, typer.Option("--speed", min=0.0, help="With --replay: times real time; default: as fast as can be.")
]
Idle = Annotated[bool, typer.Option("--until-idle", help="Stop when nothing is left to be taken, instead of waiting.")]
MetricsPort = Annotated[
    int | None,
    typer.Option("--metrics-port", min=0, max=65535, help="Serve Prometheus metrics on this port, on loopback."),
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
    """Take events from their streams to log and online states; stops on SIGTERM or Ctrl-C, and may be killed."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        begun = threading.Event()

        def on_counts(source_counts: Sequence[SourceCounts]) -> None:
            if not (as_json or begun.is_set()):
                names = ", ".join(counts.source for counts in source_counts)
                typer.echo(f"taking events of {names}, stop with Ctrl-C", err=True)
            begun.set()
            show(" | ".join(_line(counts) for counts in source_counts))

        with output.line() as show, _told() as stop:
            source_counts = project.stream(
                sources or (),
                replay=replay,
                speed=speed,
                until_idle=until_idle,
                metrics_port=metrics_port,
                stop=stop,
                on_counts=on_counts,
            )
        bodies = [counts.as_dict() for counts in source_counts]
        rows = [tuple(body.values()) for body in bodies]
        output.answer({"sources": bodies}, table("events", tuple(bodies[0]), rows))


def _line(counts: SourceCounts) -> str:
    """Return one source's live line."""
    lag = "?" if counts.lag is None else f"{counts.lag:,}"
    seen = "-" if counts.watermark_us is None else _moment(counts.watermark_us)
    line = (
        f"{counts.source}: {counts.accepted:,} events, {counts.rate():,.0f}/s, lag {lag}, watermark {seen}, "
        f"{counts.late:,} late, {counts.duplicates:,} duplicate, {counts.rejected:,} quarantined"
    )
    return line if counts.trouble is None else f"{line}; waits: {counts.trouble}"


def _moment(us: int) -> str:
    from skewless.contract.clock import from_us

    return f"{from_us(us):%Y-%m-%d %H:%M:%S}"


@contextmanager
def _told() -> Iterator[threading.Event]:
    """Yield what is set when the process is told to stop."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
