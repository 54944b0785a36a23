"""The commands of a project as methods, for notebooks and programs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

from skewless.operations.api_keys import ApiKeys
from skewless.operations.audited import audited
from skewless.operations.data.entity_lists import ProjectLists
from skewless.operations.init import init as write_project
from skewless.operations.jobs.runs import Runs
from skewless.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    # An attribute of `_ops` is a module that a type checker and an editor have read here.
    import skewless.operations.data.entity_values
    import skewless.operations.data.erasure.erase
    import skewless.operations.data.events
    import skewless.operations.data.feedback
    import skewless.operations.data.validation
    import skewless.operations.health.alerts
    import skewless.operations.health.freshness
    import skewless.operations.health.status
    import skewless.operations.models.adoption
    import skewless.operations.models.quality
    import skewless.operations.models.rollout
    import skewless.operations.models.signing
    import skewless.operations.models.triggers
    import skewless.operations.models.versions
    import skewless.operations.predictions.predictions
    import skewless.operations.predictions.proof
    import skewless.operations.predictions.why
    import skewless.operations.serve
    import skewless.operations.state.backup
    import skewless.operations.state.bundle
    import skewless.operations.state.housekeeping
    import skewless.operations.state.recovery
    from skewless import operations as _ops
    from skewless.contract.spec import TimeMode
    from skewless.infra.definitions.plans.planning import PlanReport
    from skewless.infra.ingest.materialization.run_report import OnStep, Pending, ViewReport
    from skewless.infra.platform.jobs.run import Run
    from skewless.operations.health.finding import CheckFinding
    from skewless.operations.jobs.scheduler import Invoke
    from skewless.operations.state.backup import Backup, OnFile
    from skewless.training.dataset_files import DatasetReport
    from skewless.validation.drift.verdicts import DriftReport


_MOST_CHANGES = 200  # of an applied plan, in the audit log


class _Operation:
    """A function of ``skewless.operations`` as a method: it is imported when it is first used, with its libraries."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> _Operation:
        return _Operation(f"{self._path}.{name}")

    def __get__(self, project: Project | None, _: type[Project]) -> object:
        module, name = self._path.rsplit(".", 1)
        function = getattr(importlib.import_module(module), name)
        return function if project is None else MethodType(function, project)


if not TYPE_CHECKING:
    _ops = _Operation("skewless.operations")


def _tell_plan(report: PlanReport) -> dict[str, Any]:
    body = report.as_dict()
    return {"plan": body["plan"], "changes": body["changes"][:_MOST_CHANGES]}


class Project(Workspace):
    """A project and its commands: each command of ``skewless`` is a method of the same name, and prints its result.

    The page ``docs/commands.md`` describes the commands, ``docs/python.md`` their use in Python. Errors are those of
    ``skewless.contract.errors``; their exit codes are those of the commands. If a command changes something,
    ``dry_run=True`` returns what it would change.
    """

    @property
    def keys(self) -> ApiKeys:
        """The API keys: ``add``, ``list`` and ``revoke``."""
        return ApiKeys(self)

    @property
    def lists(self) -> ProjectLists:
        """The lists of policies: ``set`` and ``list``."""
        return ProjectLists(self)

    @property
    def runs(self) -> Runs:
        """The scheduler's runs: ``list``, ``show``, ``start``, ``retry`` and ``cancel``."""
        return Runs(self)

    init = staticmethod(write_project)

    @staticmethod
    def doctor(repo: Path = Path(), *, deep: bool = False) -> list[CheckFinding]:
        """Check the machine and the project of a folder, if there is one.

        Args:
            deep: also try peers, rights and predictions; what that writes, it removes.
        """
        from skewless.operations.health.checks import examine

        return examine(repo, deep=deep)

    def plan(self) -> PlanReport:
        """Compile the definitions, check them against the sources, and return what ``apply`` would change."""
        return self.planner.plan()

    @audited(tell=_tell_plan)
    def apply(self, *, expect: str | None = None, dry_run: bool = False) -> PlanReport:
        """Apply the definitions: update Feast's registry, then the plan.

        Args:
            expect: hash of the plan that may be replaced, whatever that sets back; ``none``: no plan.

        Raises:
            ConflictError: another plan is applied, or it has what this checkout would set back; nothing was changed.
        """
        if dry_run:
            return self.plan()
        report = self.planner.apply(self.clock.now_us(), expect)
        self.refresh()
        return report

    validate = _ops.data.validation.validate
    suggest = _ops.data.validation.suggest_suites

    def pending(self, views: Sequence[str] = ()) -> list[Pending]:
        """Return the rows that ``materialize`` would accept now, by view; opens no online store.

        Args:
            views: names, with ``@HASH`` for versions that only models need; empty: all.

        Raises:
            RequestError: the plan has no such view.
        """
        materializer = self.materializer  # first: without a plan, its error names the project
        return materializer.pending(self.needed.select_views(views))

    def materialize(
        self, views: Sequence[str] = (), *, check: bool = True, on_step: OnStep | None = None
    ) -> list[ViewReport]:
        """Append new source rows to the log and write them to the online store; ``check`` them first.

        Args:
            views: as ``pending``.

        Raises:
            GateError: new rows of a view were rejected; the other views are up to date.
            RequestError: the plan has no such view.
        """
        materializer, checks = self.materializer, self.checks.check_rows if check else None
        return materializer.run(self.needed.select_views(views), checks, on_step=on_step)

    import_events = _ops.data.events.import_events
    stream = _ops.data.events.stream
    backfill = _ops.data.events.backfill
    get = _ops.data.entity_values.read_entity

    def dataset(
        self,
        entities: Path,
        service: str,
        out: Path,
        *,
        mode: TimeMode = "knowledge",
        time: str = "event_timestamp",
        dry_run: bool = False,
        on_rows: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> DatasetReport:
        """Write an entity file with the features of a service, or of a model's; a second call continues."""
        from skewless.training.dataset_files import open_dataset_files

        files = open_dataset_files(
            self.connection, self.views, self.applied, entities, service, mode=mode, time_column=time
        )
        return files.preview(out) if dry_run else files.write(out, on_rows)

    train = _ops.models.versions.train

    sign = _ops.models.signing.sign
    adopt = _ops.models.adoption.adopt
    approve = _ops.models.adoption.approve
    versions = _ops.models.versions.read_versions
    promote = _ops.models.versions.promote
    rollout = _ops.models.rollout.rollout
    rollback = _ops.models.rollout.rollback
    serve = _ops.serve.serve

    def predict(self, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """Return predictions for rows of entity keys and request fields, as the server would now."""
        from skewless.operations.serve import check_model
        from skewless.serving.batch import predict_rows

        check_model(self, model)  # an error comes before a Redis server starts
        return predict_rows(self.server_config(), model, rows)

    def predict_file(self, model: str | None, source: Path, target: Path, *, leaves: bool = False) -> int:
        """Predict every row of a Parquet or CSV file, or of a folder of them; return the number of rows.

        Args:
            target: a file; of a folder also a folder, with a file of the same name for each file.
            leaves: also write the index of the leaf that each row reaches in each tree; the target is Parquet.
        """
        from skewless.operations.serve import check_model
        from skewless.serving.batch_tasks import predict_file

        check_model(self, model)
        config = self.server_config()
        return predict_file(
            config, model, source, target, open_views=lambda: self.views, engine=self.engine, leaves=leaves
        )

    feedback = _ops.data.feedback.feedback
    quality = _ops.models.quality.quality

    def drift(self, model: str | None = None, *, window_us: int | None = None, dry_run: bool = False) -> DriftReport:
        """Compare live features, scores and labels with training; store the result, and send an alert."""
        from skewless.operations.models.drift import check_drift

        return check_drift(self, self.applied.model_or_only(model).name, window_us=window_us, dry_run=dry_run)

    predictions = _ops.predictions.predictions.predictions
    why = _ops.predictions.why.why
    replay = _ops.predictions.proof.run_replay
    parity = _ops.predictions.proof.run_parity
    freshness = _ops.health.freshness.check_freshness
    alerts = _ops.health.alerts.alerts

    def scheduler(
        self,
        *,
        once: bool = False,
        only: Sequence[str] = (),
        until_us: int | None = None,
        invoke: Invoke | None = None,
    ) -> list[Run]:
        """Run the scheduled jobs until SIGTERM; or each job ``once``, now; or ``until`` a time of its clock."""
        from skewless.operations.jobs.scheduler import run_once, run_scheduler, simulate

        if until_us is not None:
            return simulate(self, until_us, invoke)
        if once or only:
            return run_once(self, only, invoke)
        run_scheduler(self)
        return []

    triggers = _ops.models.triggers.triggers
    housekeeping = _ops.state.housekeeping.run_housekeeping
    erase = _ops.data.erasure.erase.erase
    backup = _ops.state.backup.back_up

    def restore(self, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
        """Copy a backup into the empty state of this project."""
        from skewless.operations.state.backup import restore

        return restore(self.state, folder, dry_run=dry_run, on_file=on_file)

    bundle = _ops.state.bundle.bundle
    recover = _ops.state.recovery.recover

    status = _ops.health.status.read_status
