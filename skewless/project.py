"""The commands of a project as methods, for notebooks and programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.operations.alerts import alerts
from skewless.operations.api_keys import ApiKeys
from skewless.operations.backup import Backup, OnFile, back_up, restore
from skewless.operations.checkup.finding import CheckupFinding
from skewless.operations.drift import check_drift
from skewless.operations.entity_values import EntityValues, read_entity
from skewless.operations.erasure.erase import erase
from skewless.operations.erasure.receipt import ErasureReceipt
from skewless.operations.events import OnCounts, backfill, import_events, stream
from skewless.operations.events import OnRows as OnEvents
from skewless.operations.feedback import FeedbackReport, feedback
from skewless.operations.freshness import check_freshness
from skewless.operations.housekeeping import HousekeepingReport, run_housekeeping
from skewless.operations.importance import ImportanceReport, importance
from skewless.operations.init import InitReport, TemplateName, init
from skewless.operations.promotion import Promotion, promote, train
from skewless.operations.proof import run_parity, run_replay
from skewless.operations.quality import QualityReport, quality
from skewless.operations.recovery import RecoveryReport, recover
from skewless.operations.report.blocks import Report
from skewless.operations.report.report import write_report
from skewless.operations.rollout import RolloutOutcome, rollback, rollout
from skewless.operations.runs import Runs
from skewless.operations.scheduler import Invoke, run_once, run_scheduler, simulate
from skewless.operations.serve import check_model, serve
from skewless.operations.signing import SignReport, sign_packages
from skewless.operations.status import ProjectStatus, read_status
from skewless.operations.suggestion import Suggestion, suggest_suites
from skewless.operations.tracking import PublishReport, open_tracker, publish
from skewless.operations.triggers import TriggersReport, triggers
from skewless.operations.validation import ValidationReport, validate
from skewless.operations.versions import VersionsReport, read_versions
from skewless.operations.why import WhyReport, why
from skewless.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from skewless.contract.spec import TimeMode
    from skewless.infra.alerts.alerts import AlertRecord
    from skewless.infra.jobs.run import Run
    from skewless.infra.materialization.readiness import OnRows
    from skewless.infra.materialization.run_report import OnStep, Pending, ViewReport
    from skewless.infra.plans.planning import PlanReport
    from skewless.infra.streams.backfill import BackfillResult
    from skewless.infra.streams.importing import ImportResult
    from skewless.infra.streams.source_counts import SourceCounts
    from skewless.infra.verdicts.last_verdicts import Freshness
    from skewless.operations.upgrade import UpgradeReport
    from skewless.training.dataset_files import DatasetReport
    from skewless.training.promotion import TrainReport
    from skewless.validation.drift.verdicts import DriftReport
    from skewless.validation.parity_report import ParityReport
    from skewless.validation.replay_report import ReplayReport


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
    def runs(self) -> Runs:
        """The scheduler's runs: ``list``, ``show``, ``start``, ``retry`` and ``cancel``."""
        return Runs(self)

    @staticmethod
    def init(folder: Path, *, template: TemplateName = "fraud", dry_run: bool = False) -> InitReport:
        """Write a new project from a template into a new or empty folder."""
        return init(folder, template=template, dry_run=dry_run)

    @staticmethod
    def doctor(repo: Path = Path()) -> list[CheckupFinding]:
        """Check the machine and the project of a folder, if there is one."""
        from skewless.operations.checkup.examination import examine

        return examine(repo)

    def plan(self) -> PlanReport:
        """Compile the definitions, check them against the sources, and return what ``apply`` would change."""
        from skewless.infra.host.processes import run_behind_servers

        return run_behind_servers(self.state, self.planner.plan)

    def apply(self, *, dry_run: bool = False) -> PlanReport:
        """Apply the definitions: update Feast's registry, then the plan."""
        from skewless.infra.host.processes import run_behind_servers

        if dry_run:
            return self.plan()
        report = run_behind_servers(self.state, lambda: self.planner.apply(self.clock.now_us()))
        self.refresh()
        return report

    def validate(
        self, names: Sequence[str] = (), *, everything: bool = False, record: bool = False, docs: Path | None = None
    ) -> ValidationReport:
        """Check sources and labels against their suites; a closed gate raises only with ``raise_if_failed``."""
        return validate(self, names, everything=everything, record=record, docs=docs)

    def suggest(self, *, write: bool = False) -> Suggestion:
        """Return suites that the current data pass; ``write`` them to ``expectations.py`` if it does not exist."""
        return suggest_suites(self, write=write)

    def pending(self) -> list[Pending]:
        """Return the rows that ``materialize`` would accept now, by view; opens no online store."""
        return self.materializer.pending(self.needed.plan.views)

    def materialize(self, *, check: bool = True, on_step: OnStep | None = None) -> list[ViewReport]:
        """Append new source rows to the log and write them to the online store; ``check`` them first.

        Raises:
            GateError: new rows of a view were rejected; the other views are up to date.
        """
        return self.materializer.run(self.needed.plan.views, self.checks.check_rows if check else None, on_step=on_step)

    def import_events(
        self, sources: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnEvents | None = None
    ) -> list[ImportResult]:
        """Append the history of event sources to the log."""
        return import_events(self, sources, dry_run=dry_run, on_rows=on_rows)

    def stream(
        self,
        sources: Sequence[str] = (),
        *,
        replay: Path | None = None,
        speed: float | None = None,
        until_idle: bool = False,
        metrics_port: int | None = None,
        stop: threading.Event | None = None,
        on_counts: OnCounts | None = None,
    ) -> list[SourceCounts]:
        """Ingest events into the log and the online store until ``stop`` is set, or the streams are idle."""
        return stream(
            self,
            sources,
            replay=replay,
            speed=speed,
            until_idle=until_idle,
            metrics_port=metrics_port,
            stop=stop,
            on_counts=on_counts,
        )

    def backfill(
        self, views: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnEvents | None = None
    ) -> list[BackfillResult]:
        """Build the states of windowed views from the log, and switch servers to them."""
        return backfill(self, views, dry_run=dry_run, on_rows=on_rows)

    def get(self, name: str, keys: Mapping[str, str], *, as_of_us: int | None = None) -> EntityValues:
        """Return an entity's values of a view or feature service, online and from the log at a time."""
        return read_entity(self, name, keys, as_of_us)

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

    def train(self, model: str, *, on_rows: OnRows | None = None) -> TrainReport:
        """Train a new version, and promote it if it passes its gate."""
        return train(self, model, on_rows=on_rows)

    def track(self, models: Sequence[str] = (), *, dry_run: bool = False) -> list[PublishReport]:
        """Publish trained versions to the tracking store of the settings."""
        return publish(self, open_tracker(self), models, dry=dry_run)

    def sign(self, models: Sequence[str] = (), *, dry_run: bool = False) -> SignReport:
        """Sign packages that have no signature."""
        return sign_packages(self, models, dry=dry_run)

    def versions(self, model: str) -> VersionsReport:
        """Return a model's versions and all changes of its aliases."""
        return read_versions(self, model)

    def promote(
        self, model: str, version: str | None = None, *, dry_run: bool = False, on_rows: OnRows | None = None
    ) -> Promotion:
        """Promote a version, by default the latest, if it passes its gate; ``refusal`` has the reason if not."""
        return promote(self, model, version, dry_run=dry_run, on_rows=on_rows)

    def rollout(
        self, model: str | None = None, *, begin: str | None = None, step: bool = False, dry_run: bool = False
    ) -> list[RolloutOutcome]:
        """Return the traffic of models; ``begin`` a version's rollout, or ``step`` all rollouts forward or back."""
        return rollout(self, model, begin=begin, step=step, dry_run=dry_run)

    def rollback(self, model: str, *, reason: str = "rolled back by hand", dry_run: bool = False) -> RolloutOutcome:
        """Send all traffic back to the champion; without a rollout, to the champion before."""
        return rollback(self, model, reason, dry_run=dry_run)

    def serve(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        workers: int | None = None,
        on_ready: Callable[[str], None] = lambda _url: None,
    ) -> None:
        """Serve predictions over HTTP until SIGTERM or SIGINT; ``on_ready`` gets the URL."""
        serve(self.server_config(host=host, port=port, workers=workers), on_ready)

    def predict(self, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """Return predictions for rows of entity keys and request fields, as the server would now."""
        from skewless.serving.batch import predict_rows

        check_model(self, model)  # an error comes before a Redis server starts
        return predict_rows(self.server_config(), model, rows)

    def predict_file(self, model: str | None, source: Path, target: Path) -> int:
        """Predict every row of a Parquet or CSV file into another; return the number of rows."""
        from skewless.serving.batch import predict_file

        check_model(self, model)
        return predict_file(self.server_config(), model, source, target)

    def feedback(self, file: Path, *, model: str | None = None, dry_run: bool = False) -> FeedbackReport:
        """Append outcomes of predictions to the outcome log; an invalid row rejects the file."""
        return feedback(self, file, model, dry_run=dry_run)

    def quality(
        self, model: str | None = None, *, since_us: int | None = None, window_us: int | None = None
    ) -> QualityReport:
        """Return the live quality of a model's versions; default: of the only model."""
        return quality(self, self.applied.model_or_only(model).name, since_us=since_us, window_us=window_us)

    def drift(self, model: str | None = None, *, window_us: int | None = None, dry_run: bool = False) -> DriftReport:
        """Compare live features, scores and labels with training; store the result, and send an alert."""
        return check_drift(self, self.applied.model_or_only(model).name, window_us=window_us, dry_run=dry_run)

    def importance(
        self,
        model: str | None = None,
        *,
        window_us: int = 86_400_000_000,
        windows: int = 7,
        sample: int = 1_000,
        seed: int = 0,
    ) -> ImportanceReport:
        """Return mean absolute contributions to the margin by feature, version and window."""
        name = self.applied.model_or_only(model).name
        return importance(self, name, window_us=window_us, windows=windows, sample=sample, seed=seed)

    def why(self, prediction: str, *, proof: bool = True) -> WhyReport:
        """Explain one logged prediction: its values, their contributions and their origin."""
        return why(self, prediction, proven=proof)

    def replay(self, model: str | None = None, *, new: bool = False) -> ReplayReport:
        """Recompute logged predictions from the accepted log, without Redis; send an alert if a bit differs."""
        return run_replay(self, model, only_new=new)

    def parity(
        self, views: Sequence[str] = (), *, sample: int = 1_000, seed: int = 0, repair: bool = False
    ) -> ParityReport:
        """Compare the online store with the log; ``repair`` mismatches from the log."""
        return run_parity(self, views, sample=sample, seed=seed, repair=repair)

    def freshness(self, views: Sequence[str] = ()) -> list[Freshness]:
        """Compare the age of each view with its limit; store the result, and send an alert."""
        return check_freshness(self, views)

    def alerts(self, *, show_all: bool = False, resolve: int | None = None) -> list[AlertRecord]:
        """Return open alerts, with ``show_all`` resolved ones too; ``resolve`` one by its number first."""
        return alerts(self, show_all=show_all, resolve=resolve)

    def report(self, models: Sequence[str] = (), *, out: Path | None = None) -> Report:
        """Write a report on models and project to one HTML file; default: ``report.html`` in the state folder."""
        return write_report(self, models, out)

    def scheduler(
        self,
        *,
        once: bool = False,
        only: Sequence[str] = (),
        until_us: int | None = None,
        invoke: Invoke | None = None,
    ) -> list[Run]:
        """Run the scheduled jobs until SIGTERM; or each job ``once``, now; or ``until`` a time of its clock."""
        if until_us is not None:
            return simulate(self, until_us, invoke)
        if once or only:
            return run_once(self, only, invoke)
        run_scheduler(self)
        return []

    def triggers(self, model: str, *, start: bool = False) -> TriggersReport:
        """Return why a model needs retraining; with ``start``, request the retraining if there is a cause."""
        return triggers(self, model, start=start)

    def housekeeping(self) -> HousekeepingReport:
        """Compact logs, and delete what is older than the ``keep_`` settings allow."""
        return run_housekeeping(self)

    def erase(self, entity: Mapping[str, str], *, dry_run: bool = False) -> ErasureReceipt:
        """Erase an entity, given by join keys and their values as text, from logs and online store."""
        return erase(self, entity, dry_run=dry_run)

    def backup(self, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
        """Copy the state of the project into a new folder, while everything runs."""
        return back_up(self, folder, dry_run=dry_run, on_file=on_file)

    def restore(self, folder: Path, *, dry_run: bool = False, on_file: OnFile = lambda *_: None) -> Backup:
        """Copy a backup into the empty state of this project."""
        return restore(self.state, folder, dry_run=dry_run, on_file=on_file)

    def recover(self, *, dry_run: bool = False) -> RecoveryReport:
        """Add rows back to the logs after the database was restored to an older state."""
        return recover(self, dry_run=dry_run)

    def upgrade(self, *, dry_run: bool = False) -> UpgradeReport:
        """Bring the state of an older release to this one."""
        from skewless.operations.upgrade import upgrade_state

        return upgrade_state(self.state, dry_run=dry_run)

    def status(self) -> ProjectStatus:
        """Return the state of the project; changes nothing, starts nothing."""
        return read_status(self)
