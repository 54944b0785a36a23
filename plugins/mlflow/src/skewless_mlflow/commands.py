"""The command ``track``."""

from __future__ import annotations

from skewless.commands.command import DryRun, TrainedModels, command
from skewless.commands.output import Session


@command("Publish trained versions to MLflow.", "--repo my-project", "fraud --dry-run --json", section="Train")
def track(session: Session, models: TrainedModels = None, *, dry_run: DryRun = False) -> None:
    """Publish to MLflow the trained versions that it lacks, and copy the aliases."""
    from skewless_mlflow.publishing import open_tracker, publish

    with session.working("publishing") as project:
        reports = publish(project, open_tracker(project), models or (), dry=dry_run)
    body = {"dry_run": dry_run, "models": [report.as_dict() for report in reports]}
    session.show(body, *([report.line() for report in reports] or ["no model is trained yet"]))
