"""Publishes trained versions to MLflow as runs, registered models and aliases, through MLflow's own client."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import DefinitionError, StoreError
from skewless_control_room.evaluation_plots import evaluation_plots
from skewless_control_room.plots import make_file
from skewless_mlflow.tracked_run import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DIGEST, VERSION = "skewless.digest", "skewless.version"
_MAX_PARAMS = 100  # of one call
_FINISHED = "FINISHED"
_SQLITE = "sqlite:///"
_HTTP = ("http://", "https://")
_HEALTH_TIMEOUT_SECONDS = 3.0


class MLflowTracker:
    """Runs of one experiment and the registered models ``PROJECT.MODEL``.

    The digest of its package identifies a run. A run is complete once it has ended, because the end is written last.

    Args:
        uri: address of the store; an SQLite file is relative to the project.
        repo: folder of the project.
        project: name of the experiment.

    Raises:
        DefinitionError: the address is invalid, or the extra is not installed.
        StoreError: the store does not answer.
    """

    def __init__(self, uri: str, repo: Path, project: str) -> None:
        uri = resolve_uri(uri, repo)
        check_server(uri)
        self._project = project
        with _convert_errors(uri):
            self._client = _open_client(uri)
            experiment = self._client.get_experiment_by_name(project)
            self._experiment = str(
                self._client.create_experiment(project, artifact_location=artifact_folder(uri))
                if experiment is None
                else experiment.experiment_id
            )
        self._uri = uri

    def published_digests(self, model: str) -> frozenset[str]:
        """Return the digests of the completely published versions."""
        with _convert_errors(self._uri):
            versions = self._versions(model)
            return frozenset(
                digest
                for digest, (_, run_id) in versions.items()
                if self._client.get_run(run_id).info.status == _FINISHED
            )

    def publish(self, run: TrackedRun) -> None:
        """Publish a run and register its version; complete an earlier attempt that failed."""
        with _convert_errors(self._uri):
            run_id = self._find_run(run) or self._create_run(run)
            self._log_run(run_id, run)
            if run.digest not in self._versions(run.model):
                self._register(run_id, run)
            self._client.set_terminated(run_id, _FINISHED, end_time=run.trained_us // 1_000)

    def aliases(self, model: str) -> dict[str, str]:
        """Return the digest of each alias's version."""
        with _convert_errors(self._uri):
            digests = {number: digest for digest, (number, _) in self._versions(model).items()}
            if not digests:
                return {}
            numbers = self._client.get_registered_model(self._model_name(model)).aliases
            return {alias: digests[str(number)] for alias, number in numbers.items() if str(number) in digests}

    def point(self, model: str, alias: str, digest: str | None) -> None:
        """Point an alias at a published version, or at none."""
        with _convert_errors(self._uri):
            if digest is None:
                self._client.delete_registered_model_alias(self._model_name(model), alias)
                return
            version = self._versions(model).get(digest)
            if version is None:
                raise StoreError("tracker", "has no such version", value=digest, fix="publish it first")
            self._client.set_registered_model_alias(self._model_name(model), alias, version[0])

    def _model_name(self, model: str) -> str:
        return f"{self._project}.{model}"

    def _find_run(self, run: TrackedRun) -> str | None:
        query = f"tags.`{DIGEST}` = '{run.digest}'"
        runs: Sequence[Run] = self._client.search_runs([self._experiment], query, max_results=1)
        return runs[0].info.run_id if runs else None

    def _create_run(self, run: TrackedRun) -> str:
        tags = {**run.tags, DIGEST: run.digest, VERSION: run.version}
        name, start = f"{run.model} {run.version}", run.trained_us // 1_000
        return str(self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=name).info.run_id)

    def _log_run(self, run_id: str, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param  # noqa: PLC0415 - of an extra

        trained_ms = run.trained_us // 1_000
        params = [Param(name, value) for name, value in run.params.items()]
        for start in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run_id, params=params[start : start + _MAX_PARAMS])
        self._client.log_batch(
            run_id, metrics=[Metric(name, value, trained_ms, 0) for name, value in run.metrics.items()]
        )
        self._client.log_artifacts(run_id, str(run.package), "package")
        plots = {f"plots/{plot.name}.svg": make_file(plot.svg) for plot in evaluation_plots(run.curves)}
        for path, text in {**run.documents, **plots}.items():
            self._client.log_text(run_id, text, path)

    def _register(self, run_id: str, run: TrackedRun) -> None:
        name, source = self._model_name(run.model), f"{self._client.get_run(run_id).info.artifact_uri}/package"
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        tags = {**run.tags, DIGEST: run.digest, VERSION: run.version}
        self._client.create_model_version(name, source=source, run_id=run_id, tags=tags)

    def _versions(self, model: str) -> dict[str, tuple[str, str]]:
        """Return number and run of each registered version, by digest."""
        versions: dict[str, tuple[str, str]] = {}
        # The registry returns pages of versions.
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name = '{self._model_name(model)}'", page_token=token)
            versions |= {
                item.tags[DIGEST]: (str(item.version), str(item.run_id)) for item in page if DIGEST in item.tags
            }
            token = page.token
            if not token:
                return versions


def resolve_uri(uri: str, repo: Path) -> str:
    """Return an address that does not depend on the working directory: SQLite files are relative to the project.

    Raises:
        DefinitionError: the address is neither SQLite nor http(s).

    >>> resolve_uri("sqlite:///mlflow.db", Path("/srv/shop"))
    'sqlite:////srv/shop/mlflow.db'
    >>> resolve_uri("http://mlflow:5000/", Path("/srv/shop"))
    'http://mlflow:5000'
    """
    if uri.startswith(_HTTP):
        return uri.rstrip("/")
    if uri.startswith(_SQLITE) and uri != _SQLITE:
        return _SQLITE + str(repo / uri.removeprefix(_SQLITE))
    raise DefinitionError(
        "setting 'tracking_uri'",
        "is not the address of an MLflow store",
        fix="use sqlite:///FILE, or http:// or https:// of a tracking server",
    )


def artifact_folder(uri: str) -> str | None:
    """Return the folder of artifacts, next to an SQLite file; None: the server decides.

    >>> artifact_folder("sqlite:////srv/shop/mlflow.db")
    'file:///srv/shop/mlartifacts'
    """
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").as_uri()


def check_server(uri: str) -> None:
    """Check in a few seconds that the server answers, because MLflow's own client retries for minutes.

    Raises:
        StoreError: the server does not answer.
    """
    if not uri.startswith(_HTTP):
        return
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=_HEALTH_TIMEOUT_SECONDS):  # noqa: S310 - http or https
            pass
    except urllib.error.HTTPError:
        return  # it answers with an error; the calls that follow report the reason
    except OSError as error:
        raise StoreError(
            "tracking server", f"does not answer: {error}", fix="start it, then run `skewless track`"
        ) from error


def _open_client(uri: str) -> MlflowClient:
    # No telemetry, and few retries: a server that stops answering must not block the caller for minutes.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise DefinitionError(
            "setting 'tracking_uri'", "needs the extra `mlflow`", fix='install "skewless[mlflow]"'
        ) from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _convert_errors(uri: str) -> Iterator[None]:
    """Convert MLflow's exceptions to our error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow 3.17 on SQLAlchemy 2.1
            yield
    except _error_types() as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(
            "tracking store", f"refuses: {first}", value=uri, fix="repair it, then run `skewless track`"
        ) from error


def _error_types() -> tuple[type[Exception], ...]:
    try:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - of an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError:
        return (OSError,)
    return (MlflowException, SQLAlchemyError, OSError)
