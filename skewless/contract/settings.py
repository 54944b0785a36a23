"""The settings of a project: ``skewless.yaml`` in the repo, overridden by ``SKEWLESS_*`` environment variables."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, unquote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from skewless.contract.destinations import check_pattern
from skewless.contract.errors import DefinitionError, PlaceError

SETTINGS_FILE = "skewless.yaml"
BUNDLE_FILE = "bundle.json"
# All that a bundle may decide, because it comes with the data: how its models answer. Nothing about trust, places,
# access, hosts or secrets, which are those of the container.
BUNDLE_SETTINGS = (
    *("max_batch", "body_bytes", "header_bytes", "unfinished_body_bytes", "max_in_flight", "max_wait_ms"),
    *("feature_timeout_ms", "deadline_ms", "feature_cache_ms", "prediction_cache", "second_runtime"),
    *("breaker_failures", "breaker_seconds", "skew_limit_ms", "log_flush_seconds", "log_capacity"),
)
# The settings that all hosts of a project must have equally, see docs/several-machines.md.
SHARED_SETTINGS = (
    *("database_url", "storage_url", "redis_url", "stream_url", "stream_partitions", "stream_keep", "clock", "kafka"),
    *("schema_registry", "sink_hosts", "trusted_keys", "approvals", "auth", "token_issuers", "token_audience"),
    *("token_algorithms", "token_keys_url", "token_keys_hours", "token_leeway_seconds", "token_scope_claim"),
    *("token_scope_names", "token_model_claim", "token_rate", "rate_limit", "keep_versions", "retire_hours"),
    *("keep_runs_days", "keep_predictions_days", "keep_quarantine_days", "event_bytes", "strict"),
)
Platform: TypeAlias = Literal["none", "kserve", "sagemaker", "vertex", "azure"]
_PREFIX = "skewless_"
_MOST_BUNDLE_BYTES = 64 << 20
# In a variable they are JSON.
_JSON = (
    *("required_models", "trusted_keys", "token_issuers", "token_algorithms", "token_scope_names"),
    "sink_hosts",
)
# Settings whose values may contain a password.
SECRETS = {
    *("redis_url", "database_url", "storage_url", "stream_url", "kafka", "schema_registry", "alert_webhook"),
    "tracking_uri",
}


class Settings(BaseModel):
    """All settings, with their defaults."""

    # Not the class of pydantic-settings: it takes longer to import than a command that changes nothing may take.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    database_url: str | None = Field(
        None,
        description="URL of the database of plans, versions, runs and leases: postgresql://USER@HOST/NAME, or "
        "sqlite:///FILE; none: an SQLite file in the state folder",
    )
    storage_url: str | None = Field(
        None,
        description="URL of the object storage of logs and packages: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
        "az://CONTAINER/PREFIX; none: the state folder",
    )
    storage_cache_gb: float = Field(
        10.0, gt=0, description="size of the local copies of an object storage, gigabytes; the least used are deleted"
    )
    redis_url: str | None = Field(
        None,
        description="URL of the online store: Redis, Valkey, or one of an installed package; "
        "none: start a private server",
    )
    stream_url: str | None = Field(
        None, description="Redis or Valkey URL of the streams of push sources; none: the online store"
    )
    state: str = Field(".skewless", description="folder of logs, packages and default database, relative to the repo")
    clock: str = Field(
        "system", description="'system', or 'file:PATH', relative to the repo, for a clock that a demo or test sets"
    )
    platform: Platform = Field(
        "none", description="platform in whose container the server runs: kserve, sagemaker, vertex, azure, or none"
    )
    host: str = Field("127.0.0.1", description="address that the server listens on")
    port: int = Field(8080, ge=0, le=65535, description="port that the server listens on; 0: any free port")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port of the Open Inference Protocol over gRPC (extra grpc); 0: any free port; none: no gRPC",
    )
    memory_limit: str = Field("1GB", description="memory limit of DuckDB; beyond it, work spills to disk")
    threads: int = Field(0, ge=0, description="threads of DuckDB and training; 0: one per core")
    engine: str = Field(
        "processes", description="engine of large work: 'processes' of this machine, 'ray' or 'spark' (extras)"
    )
    engine_address: str | None = Field(
        None,
        description="address of the engine's cluster: HOST:PORT of a Ray head, or a Spark master; none: this machine",
    )
    engine_workers: int = Field(0, ge=0, description="workers of the engine; 0: one per core")
    engine_rows: int = Field(
        10_000_000, ge=0, description="work on fewer rows runs in this process, without the engine; 0: all work uses it"
    )
    strict: bool = Field(
        False,  # noqa: FBT003 - a default
        description="reject all rows of a materialization or push if one row is invalid, instead of skipping it",
    )
    log_flush_seconds: float = Field(
        1.0, gt=0, description="longest time until a prediction is written to its log file"
    )
    log_durability: Literal["disk", "storage"] = Field(
        "disk",
        description="when a prediction of a model with log: required, or an outcome, is durable: on the server's disk, "
        "or in the log, which needs the database and the storage",
    )
    local_log_mb: float = Field(
        0.0,
        ge=0,
        description="keep only this much of predictions, and of outcomes, on the server's disk, and add nothing to the "
        "log, megabytes; 0: add all",
    )
    log_capacity: int = Field(100_000, gt=0, description="predictions that wait for the log before more are dropped")
    reload_seconds: float = Field(0.5, gt=0, description="time between two checks of the server for a moved alias")
    second_runtime: str = Field(
        "gpu",
        description="second runtime to try for each model: 'gpu' (if there is one), 'cpu' (nvForest on the CPU), "
        "'lignum', 'lignum-compiled' (its trees are compiled at load), one of an installed package, or 'none'",
    )
    workers: int = Field(1, ge=1, description="server processes that share the port")
    auth: Literal["auto", "required", "off"] = Field(
        "auto", description="API keys: 'required', 'off', or 'auto': required unless the server listens on loopback"
    )
    token_issuers: tuple[str, ...] = Field(
        (), description="URLs of OpenID Connect issuers whose tokens are accepted; none: only API keys"
    )
    token_audience: str | None = Field(None, description="value that the claim 'aud' of a token must contain")
    token_algorithms: tuple[str, ...] = Field(("RS256", "ES256"), description="allowed signature algorithms of tokens")
    token_keys_url: str | None = Field(
        None, description="URL of the issuer's JSON Web Key Set; none: its discovery document names it"
    )
    token_keys_hours: float = Field(24.0, gt=0, description="longest use of keys while their issuer is unavailable")
    token_leeway_seconds: int = Field(30, ge=0, le=600, description="tolerated difference to the clock of the issuer")
    token_scope_claim: str = Field("scope", description="claim with the scopes; dots separate the names of a path")
    token_scope_names: dict[str, str] = Field(
        {}, description="scope by value of the scope claim; none: the values are the names of the scopes"
    )
    token_model_claim: str | None = Field(
        None, description="claim with the models that the token may use, '*' for all; none: all models"
    )
    token_rate: float = Field(0.0, ge=0, description="most requests per second of each subject of tokens; 0: no limit")
    rate_limit: Literal["worker", "redis"] = Field(
        "worker",
        description="where rates are counted: 'worker', each has its share, or 'redis', for all workers and servers",
    )
    signing_key: str | None = Field(
        None,
        description="PEM file of the Ed25519 key that signs packages; none: a key that is created in the state folder",
    )
    trusted_keys: tuple[str, ...] = Field(
        (),
        description="public keys of trusted package signers; none: the keys in the database, of all who trained",
    )
    approvals: int = Field(0, ge=0, description="people who must approve a version before it is promoted; 0: none")
    tls_cert: str | None = Field(None, description="PEM file of the server's certificate; none: plain HTTP")
    tls_key: str | None = Field(None, description="PEM file of the certificate's private key")
    tls_ca: str | None = Field(
        None, description="PEM file of the CA that client certificates must come from; none: no client certificates"
    )
    max_batch: int = Field(10_000, gt=0, description="most entity rows in one request")
    body_bytes: int = Field(8_388_608, gt=0, description="largest request body, decompressed")
    header_bytes: int = Field(65_536, ge=1_024, description="largest request line plus headers")
    unfinished_body_bytes: int = Field(
        268_435_456,
        gt=0,
        description="total size of request bodies in one worker that arrive or wait for a turn",
    )
    max_in_flight: int = Field(512, gt=0, description="requests in progress in one worker before more have to wait")
    max_wait_ms: float = Field(100.0, ge=0, description="longest wait for a turn before a request is rejected")
    feature_timeout_ms: float = Field(500.0, gt=0, description="longest wait for the online store")
    deadline_ms: float = Field(0.0, ge=0, description="deadline of a request that sets none; 0: no limit")
    feature_cache_ms: float = Field(0.0, ge=0, description="longest age of a row in the server's cache; 0: no cache")
    prediction_cache: int = Field(
        0, ge=0, description="number of cached scores by model version and vector; 0: no cache"
    )
    keep_versions: int = Field(
        2, ge=1, description="latest champions of a model that stay loaded and up to date for a rollback"
    )
    retire_hours: float = Field(
        24.0, ge=0, description="time after which the online states of an unused view are deleted"
    )
    required_models: tuple[str, ...] = Field(
        (), description="models that must be loaded before the server is ready; none: no model is required"
    )
    drain_seconds: float = Field(0.0, ge=0, description="time between unready and the end of listening, on SIGTERM")
    breaker_failures: int = Field(
        5, ge=1, description="consecutive failures of the online store that open the circuit breaker"
    )
    breaker_seconds: float = Field(1.0, gt=0, description="time until an open circuit breaker tries again")
    skew_limit_ms: float = Field(
        100.0,
        gt=0,
        description="clock offset to the online store above which readiness reports a problem, and a stream worker "
        "owns no partition",
    )
    stream_partitions: int = Field(1, gt=0, le=1024, description="partitions of each push source's stream in Redis")
    stream_batch_rows: int = Field(20_000, gt=0, description="most events in one batch of a stream worker")
    stream_keep: int = Field(
        100_000, ge=0, description="messages that stay in a Redis stream after they are in the log"
    )
    event_bytes: int = Field(1_048_576, gt=0, description="largest event; larger events go to quarantine")
    kafka: str = Field("{}", description="settings of the Kafka client (librdkafka) as a JSON object")
    schema_registry: str | None = Field(
        None,
        description="URL of the schema registry of messages with schemas: https://USER:PASSWORD@HOST, or http:// "
        "for this machine; none: events and decisions are JSON without schemas",
    )
    sink_hosts: tuple[str, ...] = Field(
        (),
        description="hosts that sinks may deliver to: names, *.DOMAIN, addresses and networks; "
        "none: all but link-local addresses and metadata services",
    )
    tracking_uri: str | None = Field(
        None,
        description="MLflow store to publish trainings to: sqlite:///FILE or the URL of a server; none: do not publish",
    )
    materialize_cron: str = Field("*/5 * * * *", description="when the scheduler materializes")
    validate_cron: str = Field("0 * * * *", description="when the scheduler validates all sources")
    parity_cron: str = Field("30 2 * * *", description="when the scheduler compares the online store with the log")
    replay_cron: str = Field("0 3 * * *", description="when the scheduler replays logged predictions")
    freshness_cron: str = Field("*/5 * * * *", description="when the scheduler checks the freshness of views")
    drift_cron: str = Field("10 * * * *", description="when the scheduler checks each model for drift")
    quality_cron: str = Field("20 * * * *", description="when the scheduler measures the live quality of each model")
    triggers_cron: str = Field("30 * * * *", description="when the scheduler checks the triggers of each model")
    housekeeping_cron: str = Field(
        "45 1 * * *", description="when the scheduler compacts logs and deletes data past its retention"
    )
    rollout_seconds: float = Field(5.0, gt=0, description="time between two checks of a running rollout")
    job_seconds: float = Field(7_200.0, gt=0, description="longest time of a job before the scheduler ends it")
    scheduler_lease_seconds: float = Field(
        5.0, ge=0.5, description="time without a heartbeat after which another scheduler takes over"
    )
    scheduler_metrics_port: int = Field(0, ge=0, le=65535, description="port of the scheduler's metrics; 0: none")
    metrics_host: str = Field(
        "127.0.0.1", description="address on which schedulers and stream workers serve their metrics, without a key"
    )
    keep_runs_days: int = Field(
        90, ge=0, description="age at which finished runs are deleted from the ledger; 0: never"
    )
    keep_predictions_days: int = Field(0, ge=0, description="age at which prediction logs are deleted; 0: never")
    keep_quarantine_days: int = Field(0, ge=0, description="age at which rejected batches are deleted; 0: never")
    ui_host: str = Field("127.0.0.1", description="address that the control room listens on")
    ui_port: int = Field(8090, ge=0, le=65535, description="port of the control room; 0: any free port")
    ui_url: str | None = Field(
        None, description="URL at which people reach the control room; none: only this machine, without signing in"
    )
    ui_client_id: str | None = Field(
        None, description="client id of the control room at the one provider of token_issuers; none: only API keys"
    )
    ui_client_scopes: str = Field("openid", description="scopes that the control room requests from the provider")
    ui_with_scheduler: bool = Field(
        False,  # noqa: FBT003 - a default
        description="whether the scheduler also starts the control room",
    )
    alert_webhook: str | None = Field(
        None, description="URL to which each alert is sent as JSON; none: only log alerts"
    )

    @field_validator("sink_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_pattern(item) for item in value)

    @field_validator("auth", mode="before")
    @classmethod
    def _parse_switch(cls, value: object) -> object:
        return "off" if value is False else value  # YAML parses an unquoted `off` as false


def load_settings(repo: Path, **overrides: Any) -> Settings:  # noqa: ANN401 - values are checked by Settings
    """Return the settings of a repo; relative paths in them are relative to the repo, not to the working folder.

    A bundle may only have settings of ``BUNDLE_SETTINGS``.

    Raises:
        DefinitionError: a setting is unknown, has an invalid value, or is not one that a bundle may have.
        PlaceError: the bundle cannot be read.
    """
    variables, is_bundle = read_variables(os.environ), (repo / BUNDLE_FILE).exists()
    data = _read_bundle(repo) if is_bundle else _read_file(repo / SETTINGS_FILE)
    for name in sorted(data.keys() - set(BUNDLE_SETTINGS)) if is_bundle else ():
        fix = f"remove it; set {(_PREFIX + name).upper()} in the environment of the container if you want it"
        raise DefinitionError(f"setting {name!r} of bundle {repo}", "is not a bundle's to decide", fix=fix)
    data = {**data, **variables}  # the environment wins over the file
    if data.get("trusted_keys", True) in ([], "", None):  # who means to trust few must not trust all of the database
        fix = "list the public keys, or remove it: then the keys of all machines that trained are trusted"
        raise DefinitionError("setting 'trusted_keys'", "is empty", fix=fix)
    try:
        return _resolve_paths(Settings(**{**data, **overrides}), repo.resolve())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DefinitionError(
            f"setting {name!r}",
            first["msg"].lower().removeprefix("value error, "),
            value=None if name in SECRETS else first.get("input"),
            fix=f"correct {SETTINGS_FILE} or the SKEWLESS_* variable; see docs/settings.md",
        ) from error


def read_variables(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of an environment, not validated; other variables are skipped, and case does not matter.

    An empty variable is one that is not set: so CI and Compose pass a secret that does not exist. But trust in no key
    is not trust in all.

    >>> read_variables({"SKEWLESS_PORT": "8081", "skewless_trusted_keys": '["a"]', "SKEWLESS_LOG": "json"})
    {'port': '8081', 'trusted_keys': ['a']}
    >>> read_variables({"SKEWLESS_DATABASE_URL": "", "SKEWLESS_TRUSTED_KEYS": ""})
    {'trusted_keys': []}

    Raises:
        DefinitionError: a list or an object is not JSON.
    """
    lowered = {name.lower(): value for name, value in environment.items() if value}
    values: dict[str, Any] = {
        name: lowered[_PREFIX + name] for name in Settings.model_fields if _PREFIX + name in lowered
    }
    for name in _JSON:
        if name in values:
            values[name] = _parse_json(name, values[name])
    if any(not text and name.lower() == f"{_PREFIX}trusted_keys" for name, text in environment.items()):
        values["trusted_keys"] = []
    return values


def _parse_json(name: str, text: str) -> Any:  # noqa: ANN401 - Settings checks the value
    try:
        return json.loads(text)
    except ValueError as error:
        variable = f"environment variable {(_PREFIX + name).upper()}"
        is_object = isinstance(Settings.model_fields[name].default, dict)
        kind, fix = ("object", '{"VALUE": "NAME"}') if is_object else ("list", '["NAME", "NAME"]')
        raise DefinitionError(variable, f"is not a JSON {kind}", value=text, fix=f"write {fix}") from error


def _resolve_paths(settings: Settings, repo: Path) -> Settings:
    key = settings.signing_key
    full = {
        "clock": clock_path(settings.clock, repo),
        "kafka": kafka_paths(settings.kafka, repo),
        "signing_key": None if key is None else str(repo / Path(key).expanduser()),
    }
    urls = {"redis_url": settings.redis_url, "stream_url": settings.stream_url}
    if settings.database_url is not None:
        full["database_url"] = sqlite_path(settings.database_url, repo)
    full |= {name: redis_paths(url, repo) for name, url in urls.items() if url is not None}
    changed = {name: value for name, value in full.items() if value != getattr(settings, name)}
    return settings.model_copy(update=changed) if changed else settings


def _read_bundle(repo: Path) -> dict[str, Any]:
    """Return the settings of a bundle, which are inside its digest; a file of settings next to them is refused."""
    if (repo / SETTINGS_FILE).exists():
        fix = f"remove {SETTINGS_FILE}, and set SKEWLESS_* variables in the environment of the container"
        raise DefinitionError(f"bundle {repo}", f"has a {SETTINGS_FILE}, which its digest does not cover", fix=fix)
    try:
        with (repo / BUNDLE_FILE).open("rb") as file:  # of a larger one, a part is read, which is not JSON
            settings = json.loads(file.read(_MOST_BUNDLE_BYTES))["settings"]
        return {str(name): value for name, value in settings.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "bundle the project again with this release"
        raise PlaceError(f"folder {repo}", f"has no readable {BUNDLE_FILE}", fix=fix) from error


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
            f"file {path}", "is not a mapping of settings", value=data, fix="write lines of NAME: VALUE"
        )
    return {str(name): value for name, value in data.items()}


_FILE_CLOCK = "file:"
_TLS_FILE = re.compile(r"(?<=[?&])(ssl_(?:ca_certs|ca_path|certfile|keyfile)=)([^&#]+)")


def clock_path(setting: str, repo: Path) -> str:
    """Return the setting ``clock`` with an absolute path; a setting without a path is unchanged.

    >>> clock_path("file:clock.bin", Path("/srv/shop"))
    'file:/srv/shop/clock.bin'
    >>> clock_path("system", Path("/srv/shop"))
    'system'
    """
    if not setting.startswith(_FILE_CLOCK):
        return setting
    return _FILE_CLOCK + str(repo / Path(setting.removeprefix(_FILE_CLOCK)).expanduser())


def sqlite_path(url: str, repo: Path) -> str:
    """Return the setting ``database_url`` with an absolute path; the address of a server is unchanged.

    >>> sqlite_path("sqlite:///state.db", Path("/srv/shop"))
    'sqlite:////srv/shop/state.db'
    >>> sqlite_path("postgresql://db/shop", Path("/srv/shop"))
    'postgresql://db/shop'
    """
    prefix = "sqlite:///"
    return prefix + str(repo / Path(url.removeprefix(prefix)).expanduser()) if url.startswith(prefix) else url


def redis_paths(url: str, repo: Path) -> str:
    """Return a Redis URL with absolute paths of its certificate files.

    >>> redis_paths("rediss://h:6379/0?ssl_ca_certs=ca.pem&db=1", Path("/srv/shop"))
    'rediss://h:6379/0?ssl_ca_certs=/srv/shop/ca.pem&db=1'
    """
    return _TLS_FILE.sub(lambda match: match[1] + quote(str(repo / unquote(match[2]))), url)


def kafka_paths(text: str, repo: Path) -> str:
    """Return the setting ``kafka`` with absolute paths of its certificate and keytab files.

    A text that is not a JSON object is returned unchanged: the Kafka client rejects it.

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
    # `probe` is not a path: librdkafka then searches for the machine's CA certificates.
    return isinstance(value, str) and value != "probe" and name.endswith((".location", ".keytab"))
