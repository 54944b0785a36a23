"""What can be set per project or machine: ``skewless.yaml`` in the repo, then ``SKEWLESS_*`` variables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from skewless.contract.errors import DefinitionError

SETTINGS_FILE = "skewless.yaml"
_SECRET = {"redis_url", "stream_url", "kafka", "alert_webhook", "tracking_uri"}  # they may hold a password
_FILE_CLOCK = "file:"
_TLS_FILE = re.compile(r"(?<=[?&])(ssl_(?:ca_certs|ca_path|certfile|keyfile)=)([^&#]+)")


class Settings(BaseSettings):
    """All settings, with their defaults; environment variables win over the file."""

    model_config = SettingsConfigDict(env_prefix="SKEWLESS_", extra="forbid", frozen=True, allow_inf_nan=False)

    redis_url: str | None = Field(
        None,
        description="URL of the online store: Redis, Valkey, or another that a package brings; "
        "none: a private server is started",
    )
    stream_url: str | None = Field(
        None, description="Redis or Valkey URL of the streams of push sources; none: the online store"
    )
    state: str = Field(".skewless", description="folder for plan, log, packages and runs, relative to the repo")
    clock: str = Field(
        "system", description="'system', or 'file:PATH', relative to the repo, for a clock that a demo or test moves"
    )
    host: str = Field("127.0.0.1", description="address that the server listens on")
    port: int = Field(8080, ge=0, le=65535, description="port that the server listens on; 0: any free one")
    memory_limit: str = Field("1GB", description="DuckDB's memory limit; work beyond it spills to disk")
    threads: int = Field(0, ge=0, description="DuckDB and training threads; 0: one per core")
    strict: bool = Field(
        False,  # noqa: FBT003 - a default
        description="whether materialisation and pushes refuse a view's rows if one would be left out",
    )
    log_flush_seconds: float = Field(1.0, gt=0, description="longest time a prediction waits for its log file")
    log_capacity: int = Field(100_000, gt=0, description="predictions held for the log before they are dropped")
    reload_seconds: float = Field(0.5, gt=0, description="how often the server looks for a moved alias")
    second_runtime: Literal["gpu", "cpu", "none"] = Field(
        "gpu", description="where models are scored besides: on a GPU if there is one, nvForest's CPU class, nowhere"
    )
    workers: int = Field(1, ge=1, description="server processes on the one port")
    auth: Literal["auto", "required", "off"] = Field(
        "auto", description="API keys: 'required', 'off', or 'auto': required beyond loopback"
    )
    signing_key: str | None = Field(
        None, description="PEM file of the Ed25519 key that signs packages; none: one in the state folder, made at need"
    )
    trusted_keys: tuple[str, ...] = Field(
        (), description="public keys whose packages are loaded; none: those in `trusted_keys` of the state folder"
    )
    unsigned_packages: Literal["refuse", "load"] = Field(
        "refuse", description="whether packages that no key has signed, as in older releases, are refused or loaded"
    )
    tls_cert: str | None = Field(None, description="PEM file of the server's certificate; none: plain HTTP")
    tls_key: str | None = Field(None, description="PEM file of the certificate's private key")
    tls_ca: str | None = Field(None, description="PEM file of the authority whose client certificates are asked for")
    max_batch: int = Field(10_000, gt=0, description="most entity rows in one request")
    body_bytes: int = Field(8_388_608, gt=0, description="longest request body, unpacked")
    header_bytes: int = Field(65_536, ge=1_024, description="longest request line and headers in all")
    unfinished_body_bytes: int = Field(
        268_435_456,
        gt=0,
        description="request bodies in one worker that are still arriving or wait for a turn",
    )
    max_in_flight: int = Field(512, gt=0, description="requests under way in one worker before more have to wait")
    max_wait_ms: float = Field(100.0, ge=0, description="longest wait for a turn before a request is refused")
    feature_timeout_ms: float = Field(500.0, gt=0, description="longest wait for the online store")
    deadline_ms: float = Field(0.0, ge=0, description="longest time for a request that names none; 0: no limit")
    feature_cache_ms: float = Field(0.0, ge=0, description="longest age of a row kept in the server; 0: none is kept")
    prediction_cache: int = Field(0, ge=0, description="scores kept by model version and vector; 0: none")
    keep_versions: int = Field(
        2, ge=1, description="champions of a model that stay loaded and fed, so that a rollback may return to them"
    )
    retire_hours: float = Field(
        24.0, ge=0, description="time after which the online states of a view that nothing reads are removed"
    )
    required_models: tuple[str, ...] = Field(
        (), description="models without which the server is not ready; none: it is ready whichever it serves"
    )
    drain_seconds: float = Field(0.0, ge=0, description="time between unready and the end of listening, on SIGTERM")
    breaker_failures: int = Field(5, ge=1, description="failures of the online store in a row that open the breaker")
    breaker_seconds: float = Field(1.0, gt=0, description="time that an open breaker waits before it tries again")
    skew_limit_ms: float = Field(
        100.0, gt=0, description="clock offset to the online store above which readiness complains"
    )
    stream_partitions: int = Field(1, gt=0, le=1024, description="partitions of each push source's stream in Redis")
    stream_batch_rows: int = Field(20_000, gt=0, description="most events that a stream worker takes at once")
    stream_keep: int = Field(
        100_000, ge=0, description="messages that stay in a Redis stream after they are in the log"
    )
    event_bytes: int = Field(1_048_576, gt=0, description="longest event; a longer one goes to quarantine")
    kafka: str = Field("{}", description="settings of the Kafka client (librdkafka) as a JSON object")
    tracking_uri: str | None = Field(
        None, description="MLflow store that trainings are published to: sqlite:///FILE or a server's URL; none: none"
    )
    materialize_cron: str = Field("*/5 * * * *", description="when the scheduler materialises")
    validate_cron: str = Field("0 * * * *", description="when the scheduler checks all sources")
    parity_cron: str = Field("30 2 * * *", description="when the scheduler compares the online store with the log")
    replay_cron: str = Field("0 3 * * *", description="when the scheduler proves the logged predictions")
    freshness_cron: str = Field("*/5 * * * *", description="when the scheduler compares views with their freshness")
    drift_cron: str = Field("10 * * * *", description="when the scheduler looks for drift of each model")
    quality_cron: str = Field("20 * * * *", description="when the scheduler measures the live quality of each model")
    triggers_cron: str = Field("30 * * * *", description="when the scheduler asks whether a model must be retrained")
    housekeeping_cron: str = Field("45 1 * * *", description="when the scheduler removes what need not be kept")
    rollout_seconds: float = Field(5.0, gt=0, description="time between two looks at a rollout under way")
    job_seconds: float = Field(7_200.0, gt=0, description="a job of the scheduler that takes longer is ended")
    scheduler_lease_seconds: float = Field(5.0, ge=0.5, description="a scheduler that is silent so long is replaced")
    scheduler_metrics_port: int = Field(0, ge=0, le=65535, description="loopback port of its metrics; 0: none")
    keep_runs_days: int = Field(90, ge=0, description="age at which finished runs leave the ledger; 0: never")
    keep_predictions_days: int = Field(0, ge=0, description="age at which the prediction log is removed; 0: never")
    keep_quarantine_days: int = Field(0, ge=0, description="age at which refused batches are removed; 0: never")
    alert_webhook: str | None = Field(None, description="URL that each alert is sent to as JSON; none: only logged")

    @field_validator("auth", mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads a bare off as false


def load_settings(repo: Path, **overrides: Any) -> Settings:  # noqa: ANN401 - values are checked by Settings
    """Return the settings of a repo; files that they name are relative to it, not to the working folder.

    Raises:
        DefinitionError: a setting is unknown or has a wrong value.
    """
    data = _read_file(repo / SETTINGS_FILE)
    try:
        environment = Settings()
        chosen = {name: getattr(environment, name) for name in environment.model_fields_set}
        return _anchored(Settings(**{**data, **chosen, **overrides}), repo.resolve())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DefinitionError(
            f"setting {name!r}",
            first["msg"].lower(),
            value=None if name in _SECRET else first.get("input"),
            fix=f"correct {SETTINGS_FILE} or the SKEWLESS_* variable; see docs/settings.md",
        ) from error


def _anchored(settings: Settings, repo: Path) -> Settings:
    key = settings.signing_key
    full = {
        "clock": clock_path(settings.clock, repo),
        "kafka": kafka_paths(settings.kafka, repo),
        "signing_key": None if key is None else str(repo / Path(key).expanduser()),
    }
    urls = {"redis_url": settings.redis_url, "stream_url": settings.stream_url}
    full |= {name: redis_paths(url, repo) for name, url in urls.items() if url is not None}
    changed = {name: value for name, value in full.items() if value != getattr(settings, name)}
    return settings.model_copy(update=changed) if changed else settings


def _read_file(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise DefinitionError(
            f"file {path}", f"is not YAML: {problem}", fix="correct it; see docs/settings.md"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise DefinitionError(
            f"file {path}", "is not a table of settings", value=data, fix="write lines of NAME: VALUE"
        )
    return {str(name): value for name, value in data.items()}


def clock_path(setting: str, repo: Path) -> str:
    """Return the setting ``clock`` with the full path of its file; any other setting as it is.

    >>> clock_path("file:clock.bin", Path("/srv/shop"))
    'file:/srv/shop/clock.bin'
    >>> clock_path("system", Path("/srv/shop"))
    'system'
    """
    if not setting.startswith(_FILE_CLOCK):
        return setting
    return _FILE_CLOCK + str(repo / Path(setting.removeprefix(_FILE_CLOCK)).expanduser())


def redis_paths(url: str, repo: Path) -> str:
    """Return a Redis URL with the full paths of its certificate files.

    >>> redis_paths("rediss://h:6379/0?ssl_ca_certs=ca.pem&db=1", Path("/srv/shop"))
    'rediss://h:6379/0?ssl_ca_certs=/srv/shop/ca.pem&db=1'
    """
    return _TLS_FILE.sub(lambda found: found[1] + quote(str(repo / unquote(found[2]))), url)


def kafka_paths(text: str, repo: Path) -> str:
    """Return the setting ``kafka`` with the full paths of its certificate and keytab files.

    A text that is not a JSON object is returned as it is: who reads it refuses it.

    >>> kafka_paths('{"ssl.ca.location": "ca.pem", "ssl.key.location": "/k.pem"}', Path("/srv/shop"))
    '{"ssl.ca.location": "/srv/shop/ca.pem", "ssl.key.location": "/k.pem"}'
    """
    try:
        options = json.loads(text)
    except ValueError:
        return text
    if not isinstance(options, dict) or not any(map(_is_file, options.items())):
        return text
    return json.dumps(
        {name: str(repo / value) if _is_file((name, value)) else value for name, value in options.items()}
    )


def _is_file(option: tuple[str, object]) -> bool:
    name, value = option
    # librdkafka's word for the machine's own authorities is no file.
    return isinstance(value, str) and value != "probe" and name.endswith((".location", ".keytab"))
