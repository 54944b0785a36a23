"""The PrometheusRule of a release: the rules of infra/deploy/prometheus, about the namespace of the release alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.alert_cases import CASES, cases_of
from tests.deploy.test_rules import PROMETHEUS, RULES, run_tool
from tests.nightly.deploy.chart.release import Object, of_kind
from tools.chart import CHART, Chart, read_values

NAMESPACE = "shop-prod"
MATCHER = f'namespace="{NAMESPACE}"'


@pytest.fixture(scope="module")
def rules(chart: Chart) -> dict[str, Any]:
    """The groups of rules of a release."""
    (body,) = of_kind(chart.render(read_values("high-availability"), "shop", NAMESPACE), "PrometheusRule")
    groups: dict[str, Any] = body["spec"]
    return groups


def all_rules(groups: Object) -> list[Object]:
    return [rule for group in groups["groups"] for rule in group["rules"]]


def test_the_file_of_the_chart_is_that_of_prometheus() -> None:
    assert (CHART / "files" / "rules.yml").resolve() == RULES.resolve()


def test_the_rules_are_the_same_without_the_namespace(rules: dict[str, Any]) -> None:
    text = (
        json.dumps(rules).replace(json.dumps(f"{{{MATCHER}}}")[1:-1], "").replace(json.dumps(f"{MATCHER},")[1:-1], "")
    )
    plain = json.loads(text)
    for rule in all_rules(plain):
        assert rule["labels"].pop("namespace") == NAMESPACE
        if not rule["labels"]:
            del rule["labels"]
    assert plain == yaml.safe_load(RULES.read_text(encoding="utf-8"))


def test_every_series_of_a_rule_is_that_of_the_namespace(rules: dict[str, Any]) -> None:
    for rule in all_rules(rules):
        expression = re.sub(r'"[^"]*"', '""', rule["expr"].replace(MATCHER, "NAMESPACE"))
        series = re.findall(r"\b(?:up|skewless\w*(?::\w+)*)\b(\{NAMESPACE)?", expression)
        assert series
        assert all(series), rule["expr"]


# One of each form that the chart rewrites; the others differ in names and numbers.
FORMS = ["SkewlessServerDown", "SkewlessAvailabilityBurn", "SkewlessStreamLag", "SkewlessAlert"]


@pytest.mark.parametrize(
    ("names", "namespace"),
    [
        ([*FORMS, "SkewlessSchedulerWithoutLeader", "SkewlessSeriesMissing"], NAMESPACE),
        (FORMS[:2], "other"),
        pytest.param(list(CASES), NAMESPACE, marks=pytest.mark.soak),
    ],
    ids=["here", "elsewhere", "all"],
)
def test_alerts_fire_on_faults_of_their_namespace_alone(
    rules: dict[str, Any], tmp_path: Path, names: list[str], namespace: str
) -> None:
    cases = json.loads(json.dumps(cases_of(names)))
    for case in cases:
        for series in case["input_series"]:
            series["series"] = series["series"].replace("{", f'{{namespace="{namespace}",', 1)
        for check in case["promql_expr_test"] if namespace != NAMESPACE else []:
            check["exp_samples"] = []
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": cases}))
    assert "SUCCESS" in run_tool("test", "rules", str(tmp_path / "test.yml"))


def test_the_jobs_are_those_of_the_scrape_configuration(chart: Chart) -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    monitors = of_kind(chart.render(read_values("high-availability")), "ServiceMonitor")
    relabelings = [monitor["spec"]["endpoints"][0]["relabelings"] for monitor in monitors]
    assert sorted(rules[0]["replacement"] for rules in relabelings) == sorted(
        scrape["job_name"] for scrape in configuration["scrape_configs"]
    )
    assert {rules[0]["targetLabel"] for rules in relabelings} == {"job"}
