"""All commands of the command line, each with the examples that its help shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from typer.core import TyperCommand

from skewless.commands.alerts import alerts
from skewless.commands.backfill import backfill
from skewless.commands.backup import backup, restore, upgrade
from skewless.commands.dataset import dataset
from skewless.commands.definitions import apply, plan
from skewless.commands.demo import demo
from skewless.commands.doctor import doctor
from skewless.commands.drift import drift
from skewless.commands.erase import erase
from skewless.commands.feedback import feedback
from skewless.commands.freshness import freshness
from skewless.commands.get import get
from skewless.commands.housekeeping import housekeeping
from skewless.commands.import_events import import_events
from skewless.commands.importance import importance
from skewless.commands.init import init
from skewless.commands.keys import add_key, list_keys, revoke_key
from skewless.commands.materialize import materialize
from skewless.commands.parity import parity
from skewless.commands.predict import predict
from skewless.commands.promote import promote
from skewless.commands.quality import quality
from skewless.commands.recover import recover
from skewless.commands.replay import replay
from skewless.commands.report import report
from skewless.commands.rollback import rollback
from skewless.commands.rollout import rollout
from skewless.commands.runs import cancel_run, list_runs, retry_run, show_run, start_run
from skewless.commands.scheduler import scheduler
from skewless.commands.serve import serve
from skewless.commands.settings_help import SettingsCommand
from skewless.commands.sign import sign
from skewless.commands.status import status
from skewless.commands.stream import stream
from skewless.commands.track import track
from skewless.commands.train import train
from skewless.commands.triggers import triggers
from skewless.commands.validate import validate
from skewless.commands.versions import versions
from skewless.commands.why import why


@dataclass(frozen=True)
class Command:
    """One command, with the examples that its help shows.

    Args:
        path: the words that a user types, if they differ from the function's name: a word, or a group and a word.
        kind: the class that writes its help.
    """

    run: Callable[..., None]
    short: str
    examples: tuple[str, ...]
    path: str = ""
    kind: type[TyperCommand] = TyperCommand

    @property
    def name(self) -> str:
        """Return the words that a user types."""
        return self.path or self.run.__name__

    @property
    def epilog(self) -> str:
        """Return the examples, one per line; the mark keeps click from joining the lines."""
        return "\n".join(("\b", "Example:", *(f"  $ {line}" for line in self.examples)))


_ROW = (
    """--row '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'"""
)
GROUPS = {"keys": "Manage API keys.", "runs": "List, start, retry or cancel scheduled runs."}
COMMANDS = (
    Command(
        init,
        "Write a new project from a template.",
        ("skewless init my-project", "skewless init my-project --template churn"),
    ),
    Command(
        plan, "Show what `apply` would change.", ("skewless plan --repo my-project", "skewless plan --check --json")
    ),
    Command(apply, "Apply the definitions.", ("skewless apply --repo my-project", "skewless apply --dry-run")),
    Command(
        validate,
        "Check sources and labels against their suites.",
        ("skewless validate --repo my-project", "skewless validate card_days fraud --json"),
    ),
    Command(
        materialize,
        "Write new source rows to the log and the online store.",
        ("skewless materialize --repo my-project", "skewless materialize --dry-run"),
    ),
    Command(
        import_events,
        "Append the history of event sources to the log.",
        ("skewless import --repo my-project", "skewless import arrivals --dry-run"),
        path="import",
    ),
    Command(
        stream,
        "Ingest events into the log and the online store.",
        ("skewless stream --repo my-project", "skewless stream arrivals --replay data/arrivals --until-idle"),
    ),
    Command(
        backfill,
        "Build window states from the log.",
        ("skewless backfill carrier_now --repo my-project", "skewless backfill --dry-run"),
    ),
    Command(
        get,
        "Show the features of one entity and their origin.",
        (
            "skewless get card_days --key card_id=9007199254740993 --repo my-project",
            "skewless get fraud_features --key card_id=9007199254740993 --key shop_id=s1 --as-of 2025-01-31T12:00:00Z",
        ),
    ),
    Command(
        dataset,
        "Write a training set that is larger than memory.",
        (
            "skewless dataset --entities entities.parquet --service fraud --out rows",
            "skewless dataset --entities entities.csv --service fraud --out rows --time event_time --dry-run",
        ),
    ),
    Command(
        train,
        "Train models and promote versions that pass their gate.",
        ("skewless train --repo my-project", "skewless train fraud --json"),
    ),
    Command(
        promote,
        "Evaluate a version and promote it if it passes its gate.",
        ("skewless promote fraud 000003 --dry-run", "skewless promote fraud --repo my-project --json"),
    ),
    Command(
        versions,
        "List a model's versions and the changes of its aliases.",
        ("skewless versions fraud --repo my-project", "skewless versions fraud --json"),
    ),
    Command(
        triggers,
        "Show whether a model needs retraining, and why.",
        ("skewless triggers fraud --repo my-project", "skewless triggers fraud --start --json"),
    ),
    Command(
        track,
        "Publish trained versions to MLflow.",
        ("skewless track --repo my-project", "skewless track fraud --dry-run --json"),
    ),
    Command(
        sign,
        "Sign packages that have no signature.",
        ("skewless sign --repo my-project", "skewless sign fraud --dry-run --json"),
    ),
    Command(
        serve,
        "Serve predictions over HTTP.",
        ("skewless serve --repo my-project --port 8080", "skewless serve --port 0 --json"),
        kind=SettingsCommand,
    ),
    Command(
        predict,
        "Predict rows, or all rows of a file.",
        (f"skewless predict fraud {_ROW}", "skewless predict --in payments.parquet --out scores.csv"),
    ),
    Command(
        rollout,
        "Show, begin or advance the rollout of a version.",
        ("skewless rollout --repo my-project", "skewless rollout fraud --begin 000002 --dry-run"),
    ),
    Command(
        rollback,
        "Send all traffic back to the champion.",
        ("skewless rollback fraud --repo my-project", 'skewless rollback fraud --reason "scores look wrong"'),
    ),
    Command(
        feedback,
        "Record outcomes of predictions.",
        ("skewless feedback outcomes.parquet --dry-run", "skewless feedback payments.csv --model fraud"),
    ),
    Command(
        add_key,
        "Create an API key and show it once.",
        (
            "skewless keys add web --repo my-project --scope predict",
            "skewless keys add shop --scope predict --scope feedback --rate 100 --expires 2027-01-01 --json",
        ),
        path="keys add",
    ),
    Command(list_keys, "List the API keys.", ("skewless keys list --repo my-project",), path="keys list"),
    Command(revoke_key, "Revoke an API key.", ("skewless keys revoke web --repo my-project",), path="keys revoke"),
    Command(
        quality,
        "Show the live quality of each version.",
        ("skewless quality fraud --repo my-project", "skewless quality fraud --since 60d --window 7d --json"),
    ),
    Command(
        drift,
        "Compare live features, scores and labels with training.",
        ("skewless drift --repo my-project", "skewless drift fraud --window 12h --check --json"),
    ),
    Command(
        freshness,
        "Show the age of the latest data of each view.",
        ("skewless freshness --repo my-project", "skewless freshness card_days --check --json"),
    ),
    Command(
        importance,
        "Show feature importance over time.",
        ("skewless importance fraud --repo my-project", "skewless importance --window 6h --windows 28 --json"),
    ),
    Command(
        why,
        "Explain one logged prediction.",
        ("skewless why 5c0d81-1f --repo my-project", "skewless why 5c0d81-1f --no-proof --json"),
    ),
    Command(
        replay,
        "Recompute logged predictions and compare them bit for bit.",
        ("skewless replay --repo my-project", "skewless replay --new --json"),
    ),
    Command(
        parity,
        "Compare the online store with the log.",
        ("skewless parity --repo my-project", "skewless parity carrier_now --sample 5000 --repair --json"),
    ),
    Command(
        alerts,
        "List open alerts, or resolve one.",
        ("skewless alerts --repo my-project", "skewless alerts --all --json"),
    ),
    Command(
        report,
        "Write an HTML report.",
        ("skewless report --repo my-project", "skewless report fraud --out fraud.html --json"),
    ),
    Command(
        status,
        "Show the state of the project.",
        ("skewless status --repo my-project", "skewless status --json"),
    ),
    Command(
        doctor,
        "Check the machine and the project, and suggest fixes.",
        ("skewless doctor", "skewless doctor --repo my-project --json"),
    ),
    Command(
        scheduler,
        "Run the scheduled jobs.",
        ("skewless scheduler --repo my-project", "skewless scheduler --once", "skewless scheduler --only retrain"),
    ),
    Command(list_runs, "List scheduled runs.", ("skewless runs list 'retrain fraud' --json",), path="runs list"),
    Command(show_run, "Show one run.", ("skewless runs show retrain:fraud@20260115T040000Z",), path="runs show"),
    Command(
        start_run,
        "Request a run of a job.",
        ("skewless runs start 'retrain fraud' --cause 'new prices'",),
        path="runs start",
    ),
    Command(
        retry_run,
        "Request another attempt of a run.",
        ("skewless runs retry materialize@20260115T120000Z",),
        path="runs retry",
    ),
    Command(
        cancel_run,
        "Cancel a run that is in progress.",
        ("skewless runs cancel retrain:fraud@20260115T040000Z",),
        path="runs cancel",
    ),
    Command(
        housekeeping,
        "Compact logs and delete what is past its retention.",
        ("skewless housekeeping --repo my-project",),
    ),
    Command(
        erase,
        "Erase an entity from logs and online store.",
        ("skewless erase --entity card_id=9007199254740993 --dry-run", "skewless erase --entity user=u7 --yes --json"),
    ),
    Command(
        backup,
        "Copy the project's state while everything runs.",
        ("skewless backup /backups/fraud-20260115 --repo my-project",),
    ),
    Command(
        restore,
        "Copy a backup into an empty state.",
        ("skewless restore /backups/fraud-20260115 --repo my-project",),
    ),
    Command(
        recover,
        "Add rows back to the logs after a database failover.",
        ("skewless recover --dry-run --repo my-project", "skewless recover --repo my-project"),
    ),
    Command(
        upgrade,
        "Upgrade the state of an older release.",
        ("skewless upgrade --dry-run --repo my-project", "skewless upgrade --repo my-project"),
    ),
    Command(
        demo,
        "Run a complete example on flight data.",
        ("skewless demo --repo feature_repo", "skewless demo --drift --repo feature_repo"),
    ),
)
