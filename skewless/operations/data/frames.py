"""Prepares the join of the frames of Spark and Ray with the features of a service."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.workspace import Workspace

if TYPE_CHECKING:
    from skewless.contract.spec import TimeMode
    from skewless.training.frame_join import FrameJoin


def prepare_join(project: Workspace | str | Path, service: str, *, time_column: str, mode: TimeMode) -> FrameJoin:
    """Return the join of a service, or of a model's, with the logs as they are now.

    Raises:
        RequestError: the service or model does not exist.
        SourceError: a view has never been filled.
    """
    from skewless.infra.reads.offline.views import LogExtents
    from skewless.training.dataset_files import find_service
    from skewless.training.frame_join import FrameJoin

    with ExitStack() as stack:
        workspace = project if isinstance(project, Workspace) else stack.enter_context(Workspace(project))
        plan, views = find_service(workspace.applied, service), workspace.views
        views.check_filled(plan)
        return FrameJoin(
            state=workspace.state,
            plan=plan,
            time_column=time_column,
            mode=mode,
            extents=LogExtents(
                views={view.name: views.take_snapshot(view) for view in plan.views},
                windows={view.name: dict(views.log_ends(view)) for view in plan.windows},
            ),
            memory_limit=workspace.settings.memory_limit,
            threads=workspace.settings.threads,
        )
