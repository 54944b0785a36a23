"""The verbs of a project: what the command line does, for notebooks and programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.operations.alerts import alerts
from skewless.operations.api_keys import ApiKeys
from skewless.operations.checkup.examination import examine
from skewless.operations.checkup.finding import CheckupFinding
from skewless.operations.drift import watch
from skewless.operations.entity_values import EntityValues, read_entity
from skewless.operations.events import OnRows as OnEvents
from skewless.operations.events import OnTallies, bootstrap, import_events, stream
from skewless.operations.feedback import FeedbackReport, feedback
from skewless.operations.freshness import look
from skewless.operations.housekeeping import HousekeepingReport, tidy
from skewless.operations.importance import ImportanceReport, importance
from skewless.operations.init import InitReport, TemplateName, init
from skewless.operations.promotion import Promotion, promote, train
from skewless.operations.proof import run_parity, run_replay
from skewless.operations.quality import QualityReport, quality
from skewless.operations.report.blocks import Report
from skewless.operations.report.report import write_report
from skewless.operations.rollout import RolloutOutcome, rollback, rollout
from skewless.operations.runs import Runs
from skewless.operations.scheduler import Invoke, simulate
from skewless.operations.scheduler import once as run_once
from skewless.operations.scheduler import serve as run_scheduler
from skewless.operations.serve import serve
from skewless.operations.signing import SignReport, sign_packages
from skewless.operations.status import ProjectStatus, read_status
from skewless.operations.suggestion import Suggestion, suggest_suites
from skewless.operations.tracking import PublishReport, open_tracker, publish
from skewless.operations.triggers import TriggersReport, triggers
from skewless.operations.validation import ValidationReport, validate
from skewless.operations.versions import VersionsReport, list_all
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
    from skewless.training.dataset_files import DatasetReport
    from skewless.training.promotion import TrainReport
    from skewless.validation.drift.report import DriftReport
    from skewless.validation.parity_report import ParityReport
    from skewless.validation.replay_report import ReplayReport


class Project(Workspace):
    """A project and its verbs: each command of ``skewless`` is the method of its name, and prints what it returns.

    The page ``docs/commands.md`` describes the verbs, ``docs/python.md`` how to use them here. Errors are those of
    ``skewless.contract.errors``; their exit codes are those of the commands. Where a verb changes something,
    ``dry_run=True`` returns what it would do.
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
        """Check the machine and, if there is one, the project of a folder."""
        return examine(repo)

    def plan(self) -> PlanReport:
        """Compile the definitions, check them against the sources, and return what ``apply`` would change."""
        from skewless.infra.host.processes import beside_servers

        return beside_servers(self.state, self.planner.plan)

    def apply(self, *, dry_run: bool = False) -> PlanReport:
        """Put the definitions in force: Feast's registry, then the plan."""
        from skewless.infra.host.processes import beside_servers

        if dry_run:
            return self.plan()
        report = beside_servers(self.state, lambda: self.planner.apply(self.clock.now_us()))
        self.refresh()
        return report

    def validate(
        self, names: Sequence[str] = (), *, everything: bool = False, record: bool = False, docs: Path | None = None
    ) -> ValidationReport:
        """Check sources and labels against their suites; a closed gate is no error here, see ``raise_if_failed``."""
        return validate(self, names, everything=everything, record=record, docs=docs)

    def suggest(self, *, write: bool = False) -> Suggestion:
        """Return suites that the present data pass; ``write`` them to ``expectations.py`` where there is none."""
        return suggest_suites(self, write=write)

    def pending(self) -> list[Pending]:
        """Return what ``materialize`` would accept now, by view; opens no online store."""
        return self.materializer.pending(self.needed.plan.views)

    def materialize(self, *, check: bool = True, on_step: OnStep | None = None) -> list[ViewReport]:
        """Accept what is published into the log and apply it to the online store; ``check`` new rows first.

        Raises:
            GateError: new rows of a view were refused; the other views are up to date.
        """
        return self.materializer.run(self.needed.plan.views, self.checks.new_rows if check else None, on_step=on_step)

    def import_events(
        self, sources: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnEvents | None = None
    ) -> list[ImportResult]:
        """Append events from before the stream to the log."""
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
        on_tallies: OnTallies | None = None,
    ) -> list[SourceCounts]:
        """Take events from their streams to log and online states until ``stop`` is set, or nothing is left."""
        return stream(
            self,
            sources,
            replay=replay,
            speed=speed,
            until_idle=until_idle,
            metrics_port=metrics_port,
            stop=stop,
            on_tallies=on_tallies,
        )

    def bootstrap(
        self, views: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnEvents | None = None
    ) -> list[BackfillResult]:
        """Build the online states of windowed views from the log, and switch to them."""
        return bootstrap(self, views, dry_run=dry_run, on_rows=on_rows)

    def get(self, name: str, keys: Mapping[str, str], *, as_of_us: int | None = None) -> EntityValues:
        """Return an entity's values of a view or feature service, online and, of a moment, from the log."""
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
        """Write an entity file with the features of a service, or of a model's; run it again to go on."""
        from skewless.training.dataset_files import find_files

        files = find_files(self.connection, self.views, self.applied, entities, service, mode=mode, time_column=time)
        return files.foresee(out) if dry_run else files.write(out, on_rows)

    def train(self, model: str, *, on_rows: OnRows | None = None) -> TrainReport:
        """Train a new version; one that passes its gate takes over as its model declares."""
        return train(self, model, on_rows=on_rows)

    def track(self, models: Sequence[str] = (), *, dry_run: bool = False) -> list[PublishReport]:
        """Publish trained versions to the tracking store of the settings."""
        return publish(self, open_tracker(self), models, dry=dry_run)

    def sign(self, models: Sequence[str] = (), *, dry_run: bool = False) -> SignReport:
        """Sign packages that have no signature."""
        return sign_packages(self, models, dry=dry_run)

    def versions(self, model: str) -> VersionsReport:
        """Return a model's versions and every move of its aliases."""
        return list_all(self, model)

    def promote(
        self, model: str, version: str | None = None, *, dry_run: bool = False, on_rows: OnRows | None = None
    ) -> Promotion:
        """Let a version, or the newest, take over if its gate allows; ``refusal`` says why it does not."""
        return promote(self, model, version, dry_run=dry_run, on_rows=on_rows)

    def rollout(
        self, model: str | None = None, *, begin: str | None = None, step: bool = False, dry_run: bool = False
    ) -> list[RolloutOutcome]:
        """Return where the traffic of models stands; ``begin`` a version's rollout, or take all a ``step`` on."""
        return rollout(self, model, begin=begin, step=step, dry_run=dry_run)

    def rollback(self, model: str, *, reason: str = "rolled back by hand", dry_run: bool = False) -> RolloutOutcome:
        """End a rollout, or go back to the champion before this one."""
        return rollback(self, model, reason, dry_run=dry_run)

    def serve(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        workers: int | None = None,
        on_ready: Callable[[str], None] = lambda _url: None,
    ) -> None:
        """Answer predictions over HTTP until SIGTERM or SIGINT; ``on_ready`` is told the URL."""
        serve(self.server_config(host=host, port=port, workers=workers), on_ready)

    def predict(self, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """Return predictions for rows of entity keys and request fields, as the server would now."""
        from skewless.serving.batch import predict_rows

        _ = self.applied  # without a plan in force it fails before a Redis is started
        return predict_rows(self.server_config(), model, rows)

    def predict_file(self, model: str | None, source: Path, target: Path) -> int:
        """Predict every row of a Parquet or CSV file into another; return the number of rows."""
        from skewless.serving.batch import predict_file

        _ = self.applied
        return predict_file(self.server_config(), model, source, target)

    def feedback(self, file: Path, *, model: str | None = None, dry_run: bool = False) -> FeedbackReport:
        """Append outcomes of predictions to the outcome log; a row that is wrong refuses the file."""
        return feedback(self, file, model, dry_run=dry_run)

    def quality(
        self, model: str | None = None, *, since_us: int | None = None, window_us: int | None = None
    ) -> QualityReport:
        """Return the live quality of a model's versions; no name: of the only model."""
        return quality(self, self.applied.model_or_only(model).name, since_us=since_us, window_us=window_us)

    def drift(self, model: str | None = None, *, window_us: int | None = None, dry_run: bool = False) -> DriftReport:
        """Compare live features, scores and labels with training; keep the result, and alert."""
        return watch(self, self.applied.model_or_only(model).name, window_us=window_us, dry_run=dry_run)

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
        """Return what one logged prediction saw, what each value added, and where it came from."""
        return why(self, prediction, proven=proof)

    def replay(self, model: str | None = None, *, new: bool = False) -> ReplayReport:
        """Prove every logged prediction from the accepted log, without Redis; alert if one cannot be proven."""
        return run_replay(self, model, only_new=new)

    def parity(
        self, views: Sequence[str] = (), *, sample: int = 1_000, seed: int = 0, repair: bool = False
    ) -> ParityReport:
        """Compare the online store with the log; ``repair`` mismatches from the log."""
        return run_parity(self, views, sample=sample, seed=seed, repair=repair)

    def freshness(self, views: Sequence[str] = ()) -> list[Freshness]:
        """Compare the age of each view with its limit; keep the result, and alert."""
        return look(self, views)

    def alerts(self, *, show_all: bool = False, resolve: int | None = None) -> list[AlertRecord]:
        """Return open alerts, with ``show_all`` resolved ones too; ``resolve`` one by its number first."""
        return alerts(self, show_all=show_all, resolve=resolve)

    def report(self, models: Sequence[str] = (), *, out: Path | None = None) -> Report:
        """Write what is known of models and project to one HTML file; none: ``report.html`` in the state folder."""
        return write_report(self, models, out)

    def scheduler(
        self,
        *,
        once: bool = False,
        only: Sequence[str] = (),
        until_us: int | None = None,
        invoke: Invoke | None = None,
    ) -> list[Run]:
        """Run the scheduled jobs until SIGTERM; or each ``once``, now; or ``until`` a time on the project's clock."""
        if until_us is not None:
            return simulate(self, until_us, invoke)
        if once or only:
            return run_once(self, only, invoke)
        run_scheduler(self)
        return []

    def triggers(self, model: str, *, start: bool = False) -> TriggersReport:
        """Return why a model needs retraining; ``start`` it if there is a cause."""
        return triggers(self, model, start=start)

    def housekeeping(self) -> HousekeepingReport:
        """Remove what is older than the ``keep_`` settings say, and merge small log files."""
        return tidy(self)

    def status(self) -> ProjectStatus:
        """Return where the project stands; changes nothing, starts nothing."""
        return read_status(self)
