"""Commands on predictions: ``serve``, ``predict``, ``rollout``, ``rollback`` and ``feedback``."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from typer.core import TyperCommand

from skewless.commands.cells import StateCell
from skewless.commands.command import UNCHANGED, DryRun, Model, ModelName, argument, command, option
from skewless.commands.output import Part, Session, facts_table
from skewless.commands.tables import TextTable
from skewless.commands.train import read_rollout_lines
from skewless.contract.errors import RequestError
from skewless.contract.readable import time_text
from skewless.contract.render import count_text

if TYPE_CHECKING:
    import pyarrow as pa

    from skewless.operations.models.rollout import RolloutOutcome
    from skewless.project import Project
    from skewless.serving.server_config import ServerConfig
    from skewless.training.rollout.guardrails import Verdict

Host = Annotated[str | None, option("--host HOST", "Address to listen on; default: setting 'host'.")]
Port = Annotated[
    int | None, option("--port PORT", "Port to listen on, 0: any free port; default: setting 'port'.", min=0, max=65535)
]
Workers = Annotated[int | None, option("--workers N", "Number of worker processes; default: setting 'workers'.", min=1)]
Container = Annotated[
    Literal["kserve", "sagemaker", "vertex", "azure"] | None,
    option("--platform", "Serve in a container of this platform; default: setting 'platform'."),
]
Row = Annotated[str | None, option("--row JSON", "One row, or a list of rows; '-' reads stdin.")]
Source = Annotated[Path | None, option("--in FILE", "Parquet or CSV file of rows, or a folder.")]
Target = Annotated[Path | None, option("--out FILE", "File for the predictions; for a folder also a folder.")]
Leaves = Annotated[bool, option("--leaves", "Also write the leaf that each row reaches in each tree.")]
Begin = Annotated[str | None, option("--begin VERSION", "Begin the rollout of this version.")]
Step = Annotated[bool, option("--step", "Judge the guardrails now, and advance each rollout or roll it back.")]
Reason = Annotated[str, option("--reason TEXT", "Reason, stored in the history.")]
OutcomeFile = Annotated[Path, argument("FILE", "Parquet, CSV or JSON lines with an outcome per row.")]
ModelOfKeys = Annotated[
    str | None, option("--model MODEL", "Model of a table that has keys instead of prediction ids.")
]
_OWN = ("id", "score", "t_us", "version")
_DECIDED = ("decision", "reasons", "explored")  # of models that decide
_ENDINGS = {".parquet", ".csv"}
_ROW = (
    """--row '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'"""
)
_CHANGES = {
    None: "nothing to change",
    "begin": "rollout begins",
    "forward": "next step",
    "won": "challenger becomes champion",
    "back": "rolled back",
    "again": "step starts over",
    "follow": "traffic follows the alias",
}


class SettingsCommand(TyperCommand):
    """A command whose help ends with all settings: name, meaning and default."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click's, which typer keeps to itself
        """Write the examples, then the settings."""
        from skewless.contract.settings import SETTINGS_FILE, Settings

        super().format_epilog(ctx, formatter)
        rows = [
            (name, f"{field.description}  [default: {'none' if field.default is None else field.default}]")
            for name, field in Settings.model_fields.items()
        ]
        with formatter.section(f"Settings, in {SETTINGS_FILE} or as SKEWLESS_NAME"):
            formatter.write_dl(rows)


@command(
    "Serve predictions over HTTP.",
    "--repo my-project --port 8080",
    "--port 0 --json",
    "--platform sagemaker",
    kind=SettingsCommand,
    is_short=True,  # a server process enables the collector itself, once everything is open
    log_level="info",
)
def serve(
    session: Session, *, host: Host = None, port: Port = None, workers: Workers = None, platform: Container = None
) -> None:
    """Serve predictions over HTTP until SIGTERM or Ctrl-C; print the URL when the server is ready.

    With a platform, the project is the bundle that the platform mounts, unless --repo names another folder.
    """
    project = _open_project(session, platform)
    project.state.remember_reads()
    names = [spec.name for spec in project.models]
    config = project.server_config(host=host)

    def on_ready(url: str) -> None:
        lines = (f"serving {', '.join(names)} at {url}", f"  {_hint(config, url)}, stop with Ctrl-C")
        session.show({"url": url, "pid": os.getpid(), "models": names}, *lines)

    project.serve(host=host, port=port, workers=workers, on_ready=on_ready)


def _open_project(session: Session, option: str | None) -> Project:
    """Return the project to serve; in a platform's container, it is the mounted bundle."""
    from skewless.serving.platform import find_platform, require_platform

    name = find_platform(option, os.environ)
    platform = require_platform(name)
    if platform is None:
        return session.project
    from skewless.operations.state.bundle import prepare_state
    from skewless.project import Project

    given = None if session.repo == Path() else session.repo
    folder, settings = platform.locate_project(given, os.environ)
    project = session.exits.enter_context(contextlib.closing(Project(folder, platform=name, **settings)))
    prepare_state(project)
    return project


def _hint(config: ServerConfig, url: str) -> str:
    """Return a first step for the caller: a browser sends no API key, which a public server requires."""
    from skewless.contract.loopback import is_loopback

    if config.settings.platform != "none":
        return f"in a container of {config.settings.platform}"
    if is_loopback(config.settings.host) or config.settings.auth == "off":
        return f"try {url}/docs"
    return "send requests with an API key (skewless keys)"


@command(
    "Predict rows, or all rows of a file or folder.",
    f"fraud {_ROW}",
    "--in payments.parquet --out scores.csv",
    "--in days/ --out scored/ --leaves",
    has_engine=True,
    is_short=True,
)
def predict(
    session: Session,
    model: Model = None,
    *,
    row: Row = None,
    source: Source = None,
    target: Target = None,
    leaves: Leaves = False,
) -> None:
    """Predict rows of entity keys and request fields, or all rows of a file or folder."""
    if row is not None and source is None and target is None and not leaves:
        _predict_rows(_open_applied(session), model, read_rows(row), session)
    elif row is None and source is not None and target is not None:
        gc.enable()
        _predict_file(_open_applied(session), model, (source, target), session, leaves=leaves)
    else:
        raise RequestError(
            "options of predict",
            "name no input, or two inputs, or ask for the leaves of --row",
            fix="give --row JSON, or both --in FILE and --out FILE",
        )


def read_rows(text: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON object, or of a list of them; '-' reads stdin.

    >>> read_rows('{"card_id": 7}')
    [{'card_id': 7}]

    Raises:
        RequestError: the text is not JSON.
    """
    try:
        rows = json.loads(sys.stdin.read() if text == "-" else text, parse_constant=_reject_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            "option --row", f"is not JSON: {error}", fix="""quote it: --row '{"name": "value"}'"""
        ) from error
    return rows if isinstance(rows, list) else [rows]


def reply_body(predictions: pa.Table) -> dict[str, Any]:
    """Return predictions as plain values, in the format of the server's reply with features."""
    bodies = []
    for row in predictions.to_pylist():
        own = {name: row.pop(name) for name in _OWN}
        decided = {name: row.pop(name) for name in _DECIDED if name in row}
        bodies.append({"id": own["id"], "score": own["score"], **decided, "features": row})
    return {"version": own["version"], "t_us": own["t_us"], "predictions": bodies}


def _open_applied(session: Session) -> Project:
    """Return the project; without an applied plan it fails here, before a Redis server starts."""
    project = session.project
    _ = project.applied
    return project


def _predict_rows(project: Project, model: str | None, rows: list[dict[str, Any]], session: Session) -> None:
    body = reply_body(project.predict(model, rows))
    scores = [(item["id"], repr(item["score"]), *map(item.get, _DECIDED)) for item in body["predictions"]]
    parts = [TextTable(f"version {body['version']}", ("id", "score", *_DECIDED), scores)]
    if len(rows) == 1:
        features = body["predictions"][0]["features"]
        parts.append(
            TextTable("features", ("feature", "value"), [(name, repr(value)) for name, value in features.items()])
        )
    session.show(({"model": model} if model else {}) | body, *parts)


def _predict_file(
    project: Project, model: str | None, files: tuple[Path, Path], session: Session, *, leaves: bool
) -> None:
    source, target = files
    for name, path in (("--in", source), ("--out", target)):
        is_folder = source.is_dir() and (path.is_dir() or not path.suffix)
        if path.suffix not in _ENDINGS and not is_folder:
            raise RequestError(
                f"option {name}", "is neither Parquet nor CSV", value=str(path), fix="end it in .parquet or .csv"
            )
    with session.progress(f"predicting {source}") as project.on_progress:
        n = project.predict_file(model, source, target, leaves=leaves)
    session.show({"rows": n, "out": str(target)}, f"{count_text(n, 'row')} predicted to {target}")


def _reject_constant(name: str) -> NoReturn:
    raise RequestError("option --row", "is not JSON", value=name, fix="send null for an unknown value")


@command("Show, begin or advance the rollout of a version.", "--repo my-project", "fraud --begin 000002 --dry-run")
def rollout(
    session: Session, model: Model = None, *, begin: Begin = None, step: Step = False, dry_run: DryRun = False
) -> None:
    """Show the traffic and the guardrails of each model; begin a rollout, or advance all rollouts."""
    project = session.project
    outcomes = project.rollout(model, begin=begin, step=step, dry_run=dry_run)
    body = {"dry_run": dry_run, "models": [outcome.as_dict() for outcome in outcomes]}
    parts = [part for outcome in outcomes for part in _rollout_parts(outcome, is_change=step or begin is not None)]
    lines = [] if dry_run else [line for item in outcomes for line in read_rollout_lines(project, item.model)]
    session.show(body, *parts, *lines, *([UNCHANGED] if dry_run else []))


def _rollout_parts(outcome: RolloutOutcome, *, is_change: bool) -> list[Part]:
    policy = outcome.policy
    if policy is None:
        return [f"{outcome.model}: has no rollout yet; the champion answers all traffic"]
    facts: list[tuple[str, object]] = [
        ("phase", policy.phase),
        ("champion", policy.champion),
        ("challenger", policy.challenger),
        ("challenger's share", f"{policy.share:.4g}" if policy.challenger else None),
        ("since", time_text(policy.since_us)),
        ("reason", policy.reason),
    ]
    change = f", {_CHANGES[outcome.change]}" if is_change else ""
    parts: list[Part] = [facts_table(f"{outcome.model}, traffic policy {policy.number}{change}", facts)]
    if outcome.verdicts:
        columns = ("guardrail", "champion", "challenger", "worse by", "at least", "limit", "state")
        parts.append(TextTable("guardrails", columns, [_verdict_row(verdict) for verdict in outcome.verdicts]))
    return parts


def _verdict_row(verdict: Verdict) -> tuple[object, ...]:
    numbers = (verdict.champion, verdict.challenger, verdict.worse, verdict.least)
    state = (
        StateCell("breached") if verdict.breached else "too few data" if verdict.least is None else StateCell("held")
    )
    return (verdict.guardrail, *numbers, verdict.limit, state)


@command("Send all traffic back to the champion.", "fraud --repo my-project", 'fraud --reason "scores look wrong"')
def rollback(
    session: Session, model: ModelName, *, reason: Reason = "rolled back by hand", dry_run: DryRun = False
) -> None:
    """End a rollout and send all traffic back to the champion.

    Without a rollout, the champion before the current one becomes champion again. The command needs no server.
    Servers follow within two seconds.
    """
    outcome = session.project.rollback(model, reason=reason, dry_run=dry_run)
    champion = outcome.policy.champion if outcome.policy else None
    body = {"dry_run": dry_run, **outcome.as_dict()}
    if dry_run:
        session.show(body, f"{model}: version {champion} would receive all traffic", UNCHANGED)
    else:
        session.show(body, f"{model}: version {champion} receives all traffic again: {reason}")


@command("Record outcomes of predictions.", "outcomes.parquet --dry-run", "payments.csv --model fraud")
def feedback(session: Session, file: OutcomeFile, *, model: ModelOfKeys = None, dry_run: DryRun = False) -> None:
    """Record outcomes of predictions in the outcome log; an invalid row rejects the file."""
    with session.working(f"reading {file}") as project:
        report = project.feedback(file, model=model, dry_run=dry_run)
    counts = ", ".join(f"{n:,} {kind}{'s' * (n != 1)}" for kind, n in report.kinds.items())
    result = "would be appended" if dry_run else "appended"
    session.show({"dry_run": dry_run, **report.as_dict()}, f"{counts} {result}")
