"""The command ``ui``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from skewless.commands.command import command, option
from skewless.commands.output import Session
from skewless.contract.render import count_text

Save = Annotated[Path | None, option("--save FOLDER", "Write the pages to a folder instead, and end.")]
Host = Annotated[str | None, option("--host HOST", "Address to listen on; default: setting 'ui_host'.")]
Port = Annotated[
    int | None,
    option("--port PORT", "Port to listen on, 0: any free port; default: setting 'ui_port'.", min=0, max=65535),
]


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
