"""The command line: which verbs there are. Each imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.core import TyperCommand

from skewless import __version__
from skewless.commands.alerts import alerts
from skewless.commands.backfill import bootstrap
from skewless.commands.dataset import dataset
from skewless.commands.definitions import apply, plan
from skewless.commands.demo import demo
from skewless.commands.doctor import doctor
from skewless.commands.drift import drift
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
class Verb:
    """One command, with what its help shows under "Example".

    Args:
        called: what is typed, where it is not the function's name: a word, or a group and a word.
        kind: how its help is written.
    """

    run: Callable[..., None]
    short: str
    examples: tuple[str, ...]
    called: str = ""
    kind: type[TyperCommand] = TyperCommand

    @property
    def name(self) -> str:
        """Return what is typed."""
        return self.called or self.run.__name__

    @property
    def epilog(self) -> str:
        """Return the examples, a line each; the mark keeps the lines as they are."""
        return "\n".join(("\b", "Example:", *(f"  $ {line}" for line in self.examples)))


_ROW = (
    """--row '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'"""
)
GROUPS = {"keys": "Say who may ask the prediction server.", "runs": "See and ask what the scheduler does."}
VERBS = (
    Verb(init, "Write a new project.", ("skewless init my-project", "skewless init my-project --template churn")),
    Verb(plan, "Show what `apply` would change.", ("skewless plan --repo my-project", "skewless plan --check --json")),
    Verb(apply, "Put the definitions in force.", ("skewless apply --repo my-project", "skewless apply --dry-run")),
    Verb(
        validate,
        "Check sources and labels.",
        ("skewless validate --repo my-project", "skewless validate card_days fraud --json"),
    ),
    Verb(
        train,
        "Train models; promote what passes its gate.",
        ("skewless train --repo my-project", "skewless train fraud --json"),
    ),
    Verb(
        track,
        "Publish trained versions to MLflow.",
        ("skewless track --repo my-project", "skewless track fraud --dry-run --json"),
    ),
    Verb(
        sign,
        "Sign packages that have no signature.",
        ("skewless sign --repo my-project", "skewless sign fraud --dry-run --json"),
    ),
    Verb(
        promote,
        "Compare a version; put it in its place.",
        ("skewless promote fraud 000003 --dry-run", "skewless promote fraud --repo my-project --json"),
    ),
    Verb(
        versions,
        "List a model's versions and moves.",
        ("skewless versions fraud --repo my-project", "skewless versions fraud --json"),
    ),
    Verb(
        dataset,
        "Write training rows larger than memory.",
        (
            "skewless dataset --entities asked.parquet --service fraud --out rows",
            "skewless dataset --entities asked.csv --service fraud --out rows --time asked_at --dry-run",
        ),
    ),
    Verb(
        materialize,
        "Publish new rows to log and online store.",
        ("skewless materialize --repo my-project", "skewless materialize --dry-run"),
    ),
    Verb(
        import_events,
        "Append events from before the stream.",
        ("skewless import --repo my-project", "skewless import arrivals --dry-run"),
        called="import",
    ),
    Verb(
        stream,
        "Take events to log and online states.",
        ("skewless stream --repo my-project", "skewless stream arrivals --replay data/arrivals --until-idle"),
    ),
    Verb(
        bootstrap,
        "Build windowed views from the log.",
        ("skewless bootstrap carrier_now --repo my-project", "skewless bootstrap --dry-run"),
    ),
    Verb(
        serve,
        "Answer predictions over HTTP.",
        ("skewless serve --repo my-project --port 8080", "skewless serve --port 0 --json"),
        kind=SettingsCommand,
    ),
    Verb(
        add_key,
        "Make an API key; it is shown once.",
        (
            "skewless keys add web --repo my-project --scope predict",
            "skewless keys add shop --scope predict --scope feedback --rate 100 --expires 2027-01-01 --json",
        ),
        called="keys add",
    ),
    Verb(list_keys, "List the API keys.", ("skewless keys list --repo my-project",), called="keys list"),
    Verb(revoke_key, "Forget an API key.", ("skewless keys revoke web --repo my-project",), called="keys revoke"),
    Verb(
        predict,
        "Predict rows, or a file to a file.",
        (f"skewless predict fraud {_ROW}", "skewless predict --in payments.parquet --out scores.csv"),
    ),
    Verb(
        get,
        "Show an entity's values and where they come from.",
        (
            "skewless get card_days --key card_id=9007199254740993 --repo my-project",
            "skewless get fraud_features --key card_id=9007199254740993 --key shop_id=s1 --as-of 2025-01-31T12:00:00Z",
        ),
    ),
    Verb(
        feedback,
        "Append outcomes of predictions.",
        ("skewless feedback outcomes.parquet --dry-run", "skewless feedback payments.csv --model fraud"),
    ),
    Verb(
        quality,
        "Show live quality by version.",
        ("skewless quality fraud --repo my-project", "skewless quality fraud --since 60d --window 7d --json"),
    ),
    Verb(
        replay, "Prove every logged prediction.", ("skewless replay --repo my-project", "skewless replay --new --json")
    ),
    Verb(
        report,
        "Write all that is known as one HTML page.",
        ("skewless report --repo my-project", "skewless report fraud --out fraud.html --json"),
    ),
    Verb(
        why,
        "Take one logged prediction apart.",
        ("skewless why 5c0d81-1f --repo my-project", "skewless why 5c0d81-1f --no-proof --json"),
    ),
    Verb(
        importance,
        "Show what moved a model's answers over time.",
        ("skewless importance fraud --repo my-project", "skewless importance --window 6h --windows 28 --json"),
    ),
    Verb(
        parity,
        "Compare the online store with the log.",
        ("skewless parity --repo my-project", "skewless parity carrier_now --sample 5000 --repair --json"),
    ),
    Verb(
        drift,
        "Compare what is asked with training.",
        ("skewless drift --repo my-project", "skewless drift fraud --window 12h --check --json"),
    ),
    Verb(
        freshness,
        "Show how old the newest data is.",
        ("skewless freshness --repo my-project", "skewless freshness card_days --check --json"),
    ),
    Verb(alerts, "Show what is wrong.", ("skewless alerts --repo my-project", "skewless alerts --all --json")),
    Verb(
        rollout,
        "Show and move rollouts of new versions.",
        ("skewless rollout --repo my-project", "skewless rollout fraud --begin 000002 --dry-run"),
    ),
    Verb(
        rollback,
        "Give the champion everything again.",
        ("skewless rollback fraud --repo my-project", 'skewless rollback fraud --reason "scores look wrong"'),
    ),
    Verb(
        scheduler,
        "Do all that a project does by itself.",
        ("skewless scheduler --repo my-project", "skewless scheduler --once", "skewless scheduler --only retrain"),
    ),
    Verb(list_runs, "List the scheduler's runs.", ("skewless runs list 'retrain fraud' --json",), called="runs list"),
    Verb(show_run, "Show a run.", ("skewless runs show retrain:fraud@20260115T040000Z",), called="runs show"),
    Verb(
        start_run,
        "Ask for a run now.",
        ("skewless runs start 'retrain fraud' --cause 'new prices'",),
        called="runs start",
    ),
    Verb(retry_run, "Ask for a run again.", ("skewless runs retry materialize@20260115T120000Z",), called="runs retry"),
    Verb(cancel_run, "End a run.", ("skewless runs cancel retrain:fraud@20260115T040000Z",), called="runs cancel"),
    Verb(
        triggers,
        "Show what asks for a retraining.",
        ("skewless triggers fraud --repo my-project", "skewless triggers fraud --start --json"),
    ),
    Verb(housekeeping, "Remove what need not be kept.", ("skewless housekeeping --repo my-project",)),
    Verb(status, "Show where the project stands.", ("skewless status --repo my-project", "skewless status --json")),
    Verb(
        doctor, "Check the machine; say what to fix.", ("skewless doctor", "skewless doctor --repo my-project --json")
    ),
    Verb(
        demo,
        "Walk through everything once.",
        ("skewless demo --repo feature_repo", "skewless demo --drift --repo feature_repo"),
    ),
)


def create_app() -> typer.Typer:
    """Return the command line with every verb."""
    app = _group(
        "skewless", "Real-time tree models on a feature store, with offline and online values equal bit for bit."
    )
    groups = {name: _group(name, text) for name, text in GROUPS.items()}
    app.callback(epilog="Each verb has its own --help with an example. Start with: skewless init my-project")(_options)
    for group in groups.values():
        app.add_typer(group)
    for verb in VERBS:
        above, _, word = verb.name.rpartition(" ")
        place = groups[above] if above else app
        place.command(word, cls=verb.kind, short_help=verb.short, epilog=verb.epilog)(verb.run)
    return app


def _group(name: str, text: str) -> typer.Typer:
    # Without rich markup, help is plain text: it costs no import of rich.
    return typer.Typer(
        name=name,
        help=text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def main() -> None:
    """Run the command line; the exit code says what happened (see ``skewless.contract.errors``)."""
    create_app()()


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")]


def _options(*, version: _Version = False) -> None:
    """Do nothing: the options of the program itself act on their own."""


if __name__ == "__main__":
    main()
