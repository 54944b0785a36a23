"""The prediction server of this machine, which answers whether or not the database does."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from skewless.infra.platform.storage.project_state import ProjectState


def running_server(state: ProjectState) -> dict[str, Any] | None:
    """Return URL and pid of the prediction server; None: it does not run."""
    try:
        server = json.loads((state / "server.json").read_text())
        with suppress(PermissionError):  # another user has started it
            os.kill(server["pid"], 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"url": str(server["url"]), "pid": int(server["pid"])}


def read_server_problems(url: str) -> dict[str, str]:
    """Return what a server says about itself: why it is not ready, and its details.

    Empty if it does not answer within two seconds, or has a certificate that this machine does not trust.
    """
    from skewless.client import Client, Limits, Retries

    limits = Limits(connect_s=1.0, attempt_s=2.0, total_s=2.0)
    with Client(url, key="", limits=limits, retries=Retries(attempts=1)) as client:
        readiness = client.ready()
    problems = {**readiness.reasons, **readiness.details}
    problems.pop("server", None)  # no answer: heartbeats tell whether it lives
    return problems


def read_server(state: ProjectState) -> dict[str, Any] | None:
    """Return URL, pid and ``problems`` of the prediction server; None: it does not run."""
    server = running_server(state)
    return None if server is None else {**server, "problems": read_server_problems(server["url"])}
