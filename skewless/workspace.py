"""The parts of a project: settings, plan, log, online store, packages; each opens on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from skewless.contract.clock import Clock, open_clock
from skewless.contract.errors import PlaceError
from skewless.contract.names import check_known
from skewless.contract.settings import Settings, load_settings
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.access.audit import Actor, local_actor
from skewless.infra.platform.storage.project_state import ProjectState

if TYPE_CHECKING:
    import duckdb

    from skewless.contract.spec import ModelSpec
    from skewless.contract.vector import Vocabularies
    from skewless.infra.definitions.plans.applied_plan import AppliedPlan
    from skewless.infra.definitions.plans.needed_views import NeededViews, NeededViewsMonitor
    from skewless.infra.definitions.plans.planning import Planner
    from skewless.infra.ingest.materialization.materialize import Materializer
    from skewless.infra.ingest.materialization.readiness import VersionReadiness
    from skewless.infra.ingest.streams.streams import Streams
    from skewless.infra.models.packages.served_model import OpenedModels
    from skewless.infra.reads.engines.engine import Engine
    from skewless.infra.reads.engines.port import Executor
    from skewless.infra.reads.engines.view_reads import EngineViews
    from skewless.infra.reads.online.port import BlockingOnlineReader, OnlineWriter
    from skewless.infra.reads.online.private_server import PrivateServer
    from skewless.infra.reads.online.service_vectors import FeatureReader, OnlineFeatures
    from skewless.serving.server_config import ServerConfig
    from skewless.training.dataset import Dataset
    from skewless.training.stored_dataset import TrainingDataBuilder
    from skewless.training.training_data import TrainingData
    from skewless.validation.checks import SourceChecks

CONFIG_FILE = "feature_store.yaml"


class Workspace:
    """A folder of definitions with its state.

    Args:
        repo: the folder with ``feature_store.yaml`` and ``definitions.py``.
        settings: values that override ``skewless.yaml`` and the environment.

    Raises:
        PlaceError: the folder has no project.
        DefinitionError: a setting is invalid.
    """

    def __init__(self, repo: str | Path = ".", **settings: Any) -> None:  # noqa: ANN401 - checked by Settings
        self.repo = Path(repo).resolve()
        if not (self.repo / CONFIG_FILE).is_file():
            raise PlaceError(
                f"folder {self.repo}",
                f"is not a project: it has no {CONFIG_FILE}",
                fix="name a project with --repo DIR, or start one with `skewless init DIR`",
            )
        self.settings: Settings = load_settings(self.repo, **settings)
        self.state = ProjectState.of(self.repo, self.settings)
        self.store = PackageStore.of(self.state, self.settings)
        self.packages = self.store.packages
        self.actor: Actor = local_actor()  # in the audit log
        self.on_progress: Callable[[str, int, int], None] = lambda *_: None  # of the engine's work

    def __enter__(self) -> Self:
        """Return the project; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the project."""
        self.close()

    @cached_property
    def clock(self) -> Clock:
        """The clock of the project and all its processes."""
        return open_clock(self.settings.clock)

    @cached_property
    def applied(self) -> AppliedPlan:
        """The applied plan.

        Raises:
            StalePlanError: no plan is applied, or the registry has changed since.
        """
        from skewless.infra.definitions.plans.applied_plan import load_current

        return load_current(self.repo, self.state)

    @property
    def needed(self) -> NeededViews:
        """All views that must be up to date: the plan's, and older versions that served models read."""
        return self._needed.read()

    @cached_property
    def _needed(self) -> NeededViewsMonitor:
        from skewless.infra.definitions.plans.needed_views import NeededViewsMonitor

        return NeededViewsMonitor(self.state, self.store, self.settings.keep_versions)

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The project's DuckDB, in memory."""
        from skewless.infra.reads.offline.engine import connect

        return connect(self.state / "spill", memory_limit=self.settings.memory_limit, threads=self.settings.threads)

    @cached_property
    def views(self) -> EngineViews:
        """The views of the accepted log."""
        from skewless.infra.reads.engines.view_reads import EngineViews

        return EngineViews(self.state, self.connection, self.engine)

    @cached_property
    def engine(self) -> Engine:
        """The engine of large work."""
        from skewless.infra.reads.engines.engine import Engine

        def report(activity: str, done: int, total: int) -> None:
            self.on_progress(activity, done, total)  # as it is then

        return Engine(
            open=lambda: self.executor,
            repo=self.repo,
            state=self.state,
            settings=self.settings,
            on_progress=report,
        )

    @cached_property
    def opened_models(self) -> OpenedModels:
        """Model versions that explain and replay single predictions."""
        from skewless.infra.models.packages.served_model import OpenedModels

        return OpenedModels(self.store)

    @cached_property
    def executor(self) -> Executor:
        """The engine that runs large work; its workers start on first use."""
        from skewless.infra.reads.engines.port import open_executor

        return open_executor(self.settings.engine, self.settings)

    @cached_property
    def redis_url(self) -> str:
        """The online store's URL; a private server is started if none is set."""
        return self.settings.redis_url or self.private.ensure()

    @cached_property
    def private(self) -> PrivateServer:
        """The project's private Redis server; starts on first use."""
        from skewless.infra.reads.online.private_server import PrivateServer

        return PrivateServer(self.state.folder)

    @cached_property
    def online(self) -> OnlineWriter:
        """The blocking side of the online store."""
        from skewless.infra.reads.online.store import open_online_store

        return open_online_store(self.redis_url)

    @cached_property
    def checks(self) -> SourceChecks:
        """The gates of ``expectations.py``."""
        from skewless.validation.checks import SourceChecks

        names = [view.name for view in self.applied.plan.views] + [spec.name for spec in self.applied.models]
        return SourceChecks(
            repo=self.repo,
            state=self.state,
            connection=self.connection,
            clock=self.clock,
            known=frozenset(names),
            current=frozenset(view.hash for view in self.applied.plan.views),
            plan=self.applied.plan,
        )

    @cached_property
    def streams(self) -> Streams:
        """The event sources of the applied plan and of served models."""
        from skewless.infra.ingest.streams.streams import Streams

        _ = self.applied  # the registry must be that of the plan
        return Streams(
            plan=self.needed.plan,
            state=self.state,
            settings=self.settings,
            url=lambda: self.redis_url,
            connection=self.connection,
            clock=self.clock,
            needed=lambda: self.needed,
            engine=self.engine,
        )

    def training_set(self, model: str) -> Dataset:
        """Return a model's current training set, in memory; ``.table()`` gives Arrow."""
        return self.training_builder(self.applied.model(model)).build()

    def open_training_data(self, model: str) -> AbstractContextManager[TrainingData]:
        """Return a model's current training set; its features are in the storage if they exceed ``memory_limit``."""
        return self.training_builder(self.applied.model(model)).open()

    def training_builder(self, spec: ModelSpec) -> TrainingDataBuilder:
        """Return the builder of the current training set of a spec."""
        from skewless.training.stored_dataset import TrainingDataBuilder

        return TrainingDataBuilder(
            connection=self.connection,
            repo=self.repo,
            plan=self.applied.plan,
            spec=spec,
            views=self.views,
            now_us=self.clock.now_us(),
            store=self.store,
            on_rows=lambda done, total: self.on_progress("joining rows", done, total),
        )

    @cached_property
    def readiness(self) -> VersionReadiness:
        """Decides whether a version can be served, and prepares the online store for it."""
        from skewless.infra.ingest.materialization.readiness import VersionReadiness

        return VersionReadiness(streams=self.streams, materializer=self.materializer, check=self.checks.check_rows)

    def refresh(self) -> None:
        """Load the current plan, if another was applied meanwhile."""
        # Only what depends on the plan; `_needed` finds out itself that the plan has changed.
        for name in ("applied", "materializer", "checks", "streams", "readiness", "_feature_readers"):
            self.__dict__.pop(name, None)

    def online_features(
        self, service: str, columns: Mapping[str, Sequence[Any]], *, vocabularies: Vocabularies | None = None
    ) -> OnlineFeatures:
        """Return the current features of a feature service for some entities: a matrix, and the status of each read.

        Args:
            service: its name.
            columns: entity keys and request fields, one value per row.
            vocabularies: per text feature, its categories in the order of their codes.
        """
        reader = self._feature_readers.get(service)
        if reader is None or reader.vocabularies != (vocabularies or {}):
            reader = self._feature_readers[service] = self.feature_reader(service, vocabularies)
        return reader.read(reader.parse(columns), self.clock.now_us())

    def feature_reader(self, service: str, vocabularies: Vocabularies | None = None) -> FeatureReader:
        """Return a reader of a service's features, for many reads; it keeps the plan that is applied now.

        Raises:
            RequestError: the plan has no such service.
        """
        from skewless.infra.reads.online.marker_history import MarkerHistory
        from skewless.infra.reads.online.service_vectors import FeatureReader

        check_known("feature service", service, [known.name for known in self.applied.plan.services])
        plan, reader = self.applied.plan.select_service(service), self.online_reader
        return FeatureReader(plan, reader, vocabularies, MarkerHistory.from_runs(self.state, [plan], reader.on_connect))

    @cached_property
    def _feature_readers(self) -> dict[str, FeatureReader]:
        return {}

    @cached_property
    def online_reader(self) -> BlockingOnlineReader:
        """The blocking reading side of the online store."""
        from skewless.infra.reads.online.store import open_blocking_reader

        return open_blocking_reader(self.redis_url)

    def server_config(
        self, *, host: str | None = None, port: int | None = None, workers: int | None = None
    ) -> ServerConfig:
        """Return the configuration of the prediction server."""
        from skewless.serving.server_config import ServerConfig

        options = {"host": host, "port": port, "workers": workers}
        overrides: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        settings = self.settings.model_copy(update=overrides)
        return ServerConfig(
            repo=self.repo, state=self.state, redis_url=self.redis_url, clock=self.clock, settings=settings
        )

    def close(self) -> None:
        """Close the online store and the database; a private server stops when no process uses it."""
        # Only what was opened: reading the attribute of an unused part would open it, and start a Redis server.
        ends = dict.fromkeys(("executor", "online", "online_reader", "connection", "opened_models"), "close")
        ends |= {"private": "release"}
        for name, end in ends.items():
            if name in self.__dict__:
                getattr(self.__dict__[name], end)()

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The models of the applied plan."""
        return self.applied.models

    @property
    def planner(self) -> Planner:
        """Compares the definitions with the applied plan, and applies them."""
        from skewless.infra.definitions.plans.planning import Planner

        return Planner(repo=self.repo, state=self.state, connect=lambda: self.connection, settings=self.settings)

    @cached_property
    def materializer(self) -> Materializer:
        """Appends source rows to the log and writes them to the online store."""
        from skewless.infra.ingest.materialization.latest_tasks import EngineWriter
        from skewless.infra.ingest.materialization.materialize import Materializer

        plan = self.applied.plan
        writer = EngineWriter(engine=self.engine, redis_url=lambda: self.redis_url, buckets=plan.buckets)
        return Materializer(
            project=plan.project,
            repo=self.repo,
            state=self.state,
            connection=self.connection,
            online=lambda: self.online,
            ledger=self.views.ledger,
            clock=self.clock,
            needed=self.needed,
            strict=self.settings.strict,
            write=writer.write,
        )
