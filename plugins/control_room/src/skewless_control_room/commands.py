"""The commands ``ui``, ``card`` and ``importance``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from skewless.commands.command import ModelName, OnlyModel, Seed, VersionName, command, option, parse_length
from skewless.commands.output import Part, Session
from skewless.commands.tables import TextTable
from skewless.contract.clock import from_us
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless_control_room.importance import ImportanceReport

_MOST_COLUMNS = 6

Save = Annotated[Path | None, option("--save FOLDER", "Write the pages to a folder instead, and end.")]
Host = Annotated[str | None, option("--host HOST", "Address to listen on; default: setting 'ui_host'.")]
Port = Annotated[
    int | None,
    option("--port PORT", "Port to listen on, 0: any free port; default: setting 'ui_port'.", min=0, max=65535),
]
OneWindow = Annotated[str, option("--window LENGTH", "Length of a window, such as 6h or 1d.")]
Windows = Annotated[int, option("--windows N", "Number of windows, with the current one.", min=1, max=1000)]
Sample = Annotated[int, option("--sample N", "Number of predictions of each version and window.", min=1)]


@command(
    "Serve the control room.",
    "--repo my-project",
    "--port 0 --json",
    "--save pages",
    log_level="info",
    section="Watch",
)
def ui(session: Session, *, host: Host = None, port: Port = None, save: Save = None) -> None:
    """Serve pages about the project, for a browser, until SIGTERM or Ctrl-C; or write them to a folder."""

    def ready(url: str) -> None:
        session.show({"url": url, "pid": os.getpid()}, f"control room: {url}")
        sys.stdout.flush()

    from skewless_control_room.server import run_control_room

    saved = run_control_room(session.project, host=host, port=port, save=save, on_ready=ready)
    if saved is not None:
        failed = [f"{path} has no answer, and is not saved" for path in saved.failed]
        more = [f"{saved.skipped:,} more pages are not saved"] if saved.skipped else []
        written = f"wrote {count_text(saved.pages, 'page')}: open {saved.folder / 'index.html'}"
        session.show(saved.as_dict(), written, *failed, *more)


@command(
    "Show the model card of a version.",
    "fraud 000003 --repo my-project",
    "fraud --json",
    section="Train",
    is_short=True,
)
def card(session: Session, model: ModelName, version: VersionName = None) -> None:
    """Show the model card of a version as Markdown, made only from recorded facts."""
    from skewless_control_room.model_card import card as read_card

    report = read_card(session.project, model, version)
    session.show(report.as_dict(), report.text.rstrip())


@command(
    "Show feature importance over time.", "fraud --repo my-project", "--window 6h --windows 28 --json", section="Watch"
)
def importance(
    session: Session,
    model: OnlyModel = None,
    *,
    window: OneWindow = "1d",
    windows: Windows = 7,
    sample: Sample = 1_000,
    seed: Seed = 0,
) -> None:
    """Show mean absolute contributions to the margin by feature, version and window."""
    from skewless_control_room.importance import importance as measure

    project = session.project
    length = parse_length(window)
    with session.working("explaining predictions"):
        report = measure(project, model, window_us=length, windows=windows, sample=sample, seed=seed)
    session.show(report.as_dict(), *_importance_parts(report))


def _importance_parts(report: ImportanceReport) -> list[Part]:
    lines: list[Part] = [
        f"version {version}: this kind of model has no contributions" for version in report.unexplained
    ]
    windows = report.windows[-_MOST_COLUMNS:]
    if not windows:
        return [*lines, f"{report.model}: no prediction in these windows"]
    columns = [f"{from_us(part.since_us):%Y-%m-%d %H:%MZ} {part.version}" for part in windows]
    rows = [(name, *(part.mean.get(name) for part in windows)) for name in windows[-1].mean]
    title = f"{report.model}: mean absolute contribution to the margin"
    sampled = [f"{part.sampled:,} of {part.predictions:,}" for part in windows]
    return [*lines, TextTable(title, ("feature", *columns), [*rows, ("sampled predictions", *sampled)])]
