"""``skewless serve``: the prediction server, until it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering

if TYPE_CHECKING:
    from skewless.serving.server_config import ServerConfig

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on; default: setting 'host'.")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port to listen on, 0: any free one; default: setting 'port'."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes on the one port; default: setting 'workers'.")
]


def serve(
    *, repo: Repo = Path(), host: Host = None, port: Port = None, workers: Workers = None, as_json: Json = False
) -> None:
    """Answer predictions over HTTP; prints the URL once it is ready, stops on SIGTERM or Ctrl-C."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        names = [spec.name for spec in project.models]
        config = project.server_config(host=host, port=port, workers=workers)

        def on_ready(url: str) -> None:
            lines = (f"serving {', '.join(names)} at {url}", f"  {_hint(config, url)}, stop with Ctrl-C")
            output.answer({"url": url, "pid": os.getpid(), "models": names}, *lines)

        # A parent that imported Feast hands these down; with them, metrics would go to its folder. A client that is
        # loaded already has made its choice, and cannot do without.
        if "prometheus_client" not in sys.modules:
            for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
                os.environ.pop(name, None)
        if config.workers == 1:
            from skewless.serving.process import run_server

            run_server(config, on_ready)
        else:  # the process that looks after the workers does without what they need
            from skewless.serving.workers.supervisor import run_workers

            run_workers(config, on_ready)


def _hint(config: ServerConfig, url: str) -> str:
    """Say how to begin: a browser sends no API key, which the pages need where others can ask."""
    from skewless.serving.access.rules import is_loopback

    if is_loopback(config.host) or config.settings.auth == "off":
        return f"try {url}/docs"
    return "ask with an API key (skewless keys)"
