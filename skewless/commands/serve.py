"""``skewless serve``: the prediction server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output

if TYPE_CHECKING:
    from skewless.serving.server_config import ServerConfig

Host = Annotated[
    str | None, typer.Option("--host", metavar="HOST", help="Address to listen on; default: setting 'host'.")
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="PORT", min=0, max=65535, help="Port to listen on, 0: any free port; default: setting 'port'."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Number of worker processes; default: setting 'workers'."),
]


def serve(
    *, repo: Repo = Path(), host: Host = None, port: Port = None, workers: Workers = None, as_json: Json = False
) -> None:
    """Serve predictions over HTTP until SIGTERM or Ctrl-C; print the URL when the server is ready."""
    with command_output(as_json=as_json, log_level="info") as output:
        project = open_project(output, repo)
        project.state.remember_reads()
        names = [spec.name for spec in project.models]
        config = project.server_config(host=host)

        def on_ready(url: str) -> None:
            lines = (f"serving {', '.join(names)} at {url}", f"  {_hint(config, url)}, stop with Ctrl-C")
            output.show({"url": url, "pid": os.getpid(), "models": names}, *lines)

        project.serve(host=host, port=port, workers=workers, on_ready=on_ready)


def _hint(config: ServerConfig, url: str) -> str:
    """Return a first step for the caller: a browser sends no API key, which a public server requires."""
    from skewless.serving.access.gate import is_loopback

    if is_loopback(config.settings.host) or config.settings.auth == "off":
        return f"try {url}/docs"
    return "send requests with an API key (skewless keys)"
