"""Settings, metrics, routes, causes, codes, fields and columns: the pages list exactly those that exist."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from skewless import Project
from skewless.contract.errors import SkewlessError
from skewless.contract.labels import LabelSource
from skewless.contract.settings import Settings
from skewless.contract.spec import Gate, ModelSpec, Split, Task
from skewless.contract.status import Status
from skewless.contract.windows.view import Function
from skewless.infra.definitions.compiler.event_sources import SOURCE_TAGS
from skewless.infra.definitions.compiler.views import TAG_DELAY, TAG_FRESHNESS, TAG_MAX_AGE, TAG_TOMBSTONE
from skewless.infra.definitions.compiler.windows import ALIASES, VIEW_TAGS
from skewless.infra.ingest.streams.decider import DecisionCounts
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.worker_group import collect_streams
from skewless.infra.models.packages.package import PackageContents
from skewless.infra.models.runtimes.certification import Reference
from skewless.infra.platform.jobs.metrics import RunMetrics
from skewless.infra.platform.jobs.run import State
from skewless.infra.records.predictions.segments import SCHEMA
from skewless.serving.app import ServingContext, create_app
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.predict_route import PredictRequest
from skewless.serving.http.reply import http_status
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.replay_report import GLOSS
from skewless_decisions.deliveries import collect_sinks
from skewless_decisions.delivery import SinkCounts
from skewless_decisions.opening import collect_decisions
from tests.docs.error_kinds import tree_of
from tests.docs.pages import PAGES, names, page, section, table


def only(cells: list[str]) -> list[str]:
    """Return every name in code marks of some cells, in order."""
    return [name for cell in cells for name in names(cell)]


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    rows = table(page("settings.md"), "setting", "variable", "default", "meaning")
    found = {names(row["setting"])[0]: (*names(row["variable"]), *names(row["default"])) for row in rows}
    fields = Settings.model_fields
    shown = {name: "none" if field.default is None else str(field.default) for name, field in fields.items()}
    assert found == {name: (f"SKEWLESS_{name.upper()}", shown[name]) for name in fields}
    assert all(row["meaning"] for row in rows)


def test_every_metric_is_documented_with_type_and_labels() -> None:
    rows = table(page("metrics.md"), "metric", "type", "labels", "meaning")
    found = {names(row["metric"])[0]: (row["type"], names(row["labels"])) for row in rows}
    metrics = Metrics()
    labels = {family.name: list(family.labels) for family in metrics.families}
    shown = text_string_to_metric_families(metrics.render().decode())
    types = {f"{item.name}_total" if item.type == "counter" else item.name: item.type for item in shown}
    assert found == {name: (kind, labels.get(name, [])) for name, kind in types.items()}


def test_every_metric_of_the_stream_is_documented() -> None:
    rows = table(page("streams.md"), "stream metric", "type", "meaning")
    found = {names(row["stream metric"])[0]: row["type"] for row in rows}
    rows = table(page("decide-on-events.md"), "decision metric", "type", "meaning")
    found |= {names(row["decision metric"])[0]: row["type"] for row in rows}
    counts = [DecisionCounts(stream="d", source="s", lag=1)]
    families = [*collect_streams([SourceCounts(source="s", watermark_us=1, lag=1)]), *collect_decisions(counts)]
    assert found == {f"{item.name}_total" if item.type == "counter" else item.name: item.type for item in families}


def described_server(**parts: Any) -> ServingContext:  # noqa: ANN401 - of the context
    """Return what an application needs to describe its routes."""
    return ServingContext(
        models=cast("ModelTable", SimpleNamespace(all=list)),
        predictor=cast("Predictor", None),
        metrics=Metrics(),
        events=cast("EventForwarder", None),
        feedback=cast("Feedback", None),
        reload_seconds=1.0,
        **parts,
    )


def routes_of(app: FastAPI) -> set[str]:
    """Return the routes that OpenAPI describes."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_route_is_documented() -> None:
    rows = table(section(page("serving.md"), "Routes"), "route", "answers")
    exist = routes_of(create_app(described_server())) | {"GET /openapi.json", "GET /docs"}
    assert set(only([row["route"] for row in rows])) == exist


def test_every_field_of_a_request_is_documented() -> None:
    rows = table(section(page("serving.md"), "Request"), "field", "meaning")
    assert only([row["field"] for row in rows]) == list(PredictRequest.model_fields)


def test_every_status_is_documented() -> None:
    rows = table(page("serving.md"), "status", "meaning", "the model sees")
    assert only([row["status"] for row in rows]) == [status.name for status in Status]


def test_every_cause_is_documented_with_its_gloss_and_a_remedy() -> None:
    rows = table(page("replay.md"), "cause", "meaning", "what to do")
    assert {names(row["cause"])[0]: row["meaning"] for row in rows} == {c.value: text for c, text in GLOSS.items()}
    assert all(row["what to do"] for row in rows)


def test_every_exit_code_and_http_status_is_documented() -> None:
    rows = table(page("errors.md"), "kind", "exit code", "HTTP status", "what it means")
    found = {names(row["kind"])[0]: (int(row["exit code"]), int(row["HTTP status"])) for row in rows}
    kinds = [kind for kind in tree_of(SkewlessError) if "kind" in vars(kind)]
    assert found == {kind.kind: (kind.exit_code, http_status(kind("x", "y", fix="z"))) for kind in kinds}


@pytest.mark.parametrize("spec", [ModelSpec, LabelSource, Split, Gate])
def test_every_field_of_a_spec_is_documented_with_its_default(
    spec: type[ModelSpec | LabelSource | Split | Gate],
) -> None:
    rows = table(section(page("first-project.md"), spec.__name__), "field", "default", "meaning")
    fields = dataclasses.fields(spec)
    assert only([row["field"] for row in rows]) == [item.name for item in fields]
    for row, item in zip(rows, fields, strict=True):
        assert bool(row["default"]) == (not required(item)), item.name
        if isinstance(item.default, str | float):
            assert row["default"].strip("`") == str(item.default)


def required(item: dataclasses.Field[Any]) -> bool:
    """Say whether a field has no default."""
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def test_every_tag_is_documented() -> None:
    rows = table(page("first-project.md"), "tag", "value", "meaning")
    assert only([row["tag"] for row in rows]) == [TAG_DELAY, TAG_FRESHNESS, TAG_MAX_AGE, TAG_TOMBSTONE]


@pytest.mark.parametrize(("column", "tags"), [("source tag", SOURCE_TAGS), ("view tag", VIEW_TAGS)])
def test_every_tag_of_windows_is_documented(column: str, tags: tuple[str, ...]) -> None:
    rows = table(page("windows.md"), column, "value", "meaning")
    assert [name.removesuffix("COLUMN") for name in only([row[column] for row in rows])] == list(tags)


def test_every_function_of_a_window_is_documented_with_its_other_names() -> None:
    rows = table(page("windows.md"), "function", "Feast's other names", "columns", "the feature")
    assert [Function(name) for name in only([row["function"] for row in rows])] == list(Function)
    found = {alias: names(row["function"])[0] for row in rows for alias in names(row["Feast's other names"])}
    assert found == ALIASES


def test_every_column_of_the_prediction_log_is_documented() -> None:
    rows = table(section(page("replay.md"), "What is logged"), "column", "meaning")
    assert only([row["column"] for row in rows]) == SCHEMA.names


def test_every_metric_of_the_sinks_is_documented() -> None:
    rows = table(page("sinks-and-formats.md"), "sink metric", "type", "meaning")
    found = {names(row["sink metric"])[0]: row["type"] for row in rows}
    families = collect_sinks([SinkCounts(sink="s", waiting=1, letters=0)])
    assert found == {f"{item.name}_total" if item.type == "counter" else item.name: item.type for item in families}


def test_every_metric_of_the_evaluation_is_documented() -> None:
    rows = table(section(page("training.md"), "Evaluation"), "metric", "task", "meaning")
    found = {name: row["task"] for row in rows for name in names(row["metric"])}
    one = np.array([0.0, 1.0])
    for task in get_args(Task):
        scores = np.eye(2) if task == "multiclass" else one
        measured = [name for name in evaluate(one, scores, task=task) if not name.startswith("baseline_")]
        assert [name for name, of in found.items() if of == "all" or task in of.split(", ")] == measured


def test_every_file_of_a_package_is_documented() -> None:
    rows = table(page("training.md"), "file", "what it is")
    empty = np.zeros((1, 1))
    spec = ModelSpec(
        name="m",
        service="s",
        labels=LabelSource(path="p", event_time="e", known_time="k", label="l"),
        algorithm="lightgbm",
        split=Split(test=timedelta(days=1)),
    )
    contents = PackageContents(
        model_name="model.txt",
        model=b"",
        spec=spec,
        plan={},
        reference=Reference(empty, empty[0], empty[0]),
        profile={},
        metrics={},
        fingerprint={},
        extra={"t.py": ""},
    )
    exist = {path if not path.startswith("extra/") else "extra/" for path in contents.files()}
    assert set(only([row["file"] for row in rows])) == exist | {
        "manifest.json",
        "signature.json",
        "model.json",
        "model.npz",
    }


def test_every_metric_of_the_scheduler_is_documented() -> None:
    rows = table(page("scheduler.md"), "scheduler metric", "type", "meaning")
    found = {names(row["scheduler metric"])[0]: row["type"] for row in rows}
    families = RunMetrics().collect()
    assert found == {f"{item.name}_total" if item.type == "counter" else item.name: item.type for item in families}


def test_every_state_of_a_run_is_documented() -> None:
    rows = table(page("scheduler.md"), "state", "meaning")
    assert sorted(only([row["state"] for row in rows])) == sorted(get_args(State))


def test_what_the_pages_name_of_a_project_exists() -> None:
    named = {name for path in PAGES for name in re.findall(r"`Project\.(\w+)", path.read_text())}
    assert named >= {"dataset", "training_set"}
    assert [name for name in sorted(named) if not hasattr(Project, name)] == []
