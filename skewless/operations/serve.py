"""The prediction server of a project, in this process or in worker processes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from skewless.contract.errors import RequestError, StoreError
from skewless.contract.names import check_known
from skewless.operations.audited import record_settings

if TYPE_CHECKING:
    from skewless.workspace import Workspace


def serve(
    project: Workspace,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve predictions over HTTP until SIGTERM or SIGINT.

    Args:
        host, port, workers: None: as the settings say.
        on_ready: called with the server's URL when it is ready.

    Raises:
        PlaceError: the port is in use.
        PackageError, StalePlanError, StoreError: no champion can be served.
    """

    def ready(url: str) -> None:
        with suppress(StoreError):  # a server starts without its database, too
            record_settings(project)
        on_ready(url)

    config = project.server_config(host=host, port=port, workers=workers)
    # A parent that imported Feast sets these; metrics would go to its folder. A prometheus_client that is already
    # imported has read them, and needs them.
    if "prometheus_client" not in sys.modules:
        for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
            os.environ.pop(name, None)
    if config.settings.workers == 1:
        from skewless.serving.process import run_server

        run_server(config, ready)
    else:  # the supervisor does not import the libraries of its workers
        from skewless.serving.workers.supervisor import run_workers

        gc.enable()
        run_workers(config, ready)


def check_model(project: Workspace, name: str | None) -> None:
    """Check the model of a batch prediction before anything starts.

    Raises:
        RequestError: the project has no such model, or no model is named and there are several champions.
        StalePlanError: no plan is applied.
    """
    trained, aliases = project.packages.list_models(), project.store.aliases
    names = sorted({*trained} | {spec.name for spec in project.applied.models})
    if name is not None:
        check_known("argument MODEL", name, names)
    elif len([model for model in trained if aliases.get(model, "champion")]) > 1:
        fix = f"use one of: {', '.join(names)}"
        raise RequestError("argument MODEL", "is required: the project has several models", fix=fix)
