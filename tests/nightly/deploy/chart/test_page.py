"""docs/kubernetes.md: its values exist, its commands set values that the chart takes, its errors are those shown."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.docs.pages import blocks, names, page, table
from tools.chart import CHART, REQUIRED, VALUES, Chart, ChartError, read_values

PAGE = "kubernetes.md"


def values_set(command: list[str]) -> dict[str, Any]:
    """Return the values that the words of a command of Helm set, as Helm reads them."""
    values: dict[str, Any] = {}
    for option, word in pairwise(command):
        if option == "--set":
            path, _, text = word.partition("=")
            *outer, last = path.split(".")
            part = values
            for name in outer:
                part = part.setdefault(name, {})
            part[last] = {"true": True, "false": False}.get(text, text)
    return values


def commands(program: str) -> list[list[str]]:
    """Return the words of each command of a program on the page."""
    lines = "\n".join(blocks(page(PAGE), "bash")).replace("\\\n", "").splitlines()
    return [shlex.split(line) for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("command", commands("helm"), ids=lambda command: command[1])
def test_a_command_of_helm_sets_values_that_exist(chart: Chart, command: list[str]) -> None:
    assert command[1:4] in (
        ["install", "shop", "infra/deploy/helm/skewless"],
        ["upgrade", "shop", "infra/deploy/helm/skewless"],
    )
    if "-f" in command:
        file = command[command.index("-f") + 1]
        assert file.removeprefix(f"{command[3]}/values/").removesuffix(".yaml") in VALUES
    assert chart.render(values_set(command), "shop", "shop") != []


def test_the_secret_of_the_page_has_the_keys_that_pods_need() -> None:
    (create,) = [command for command in commands("kubectl") if "secret" in command]
    keys = [word.partition("=")[2].partition("=")[0] for word in create if word.startswith("--from-literal=")]
    assert sorted(keys) == sorted(REQUIRED)
    assert create[-4] == yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["secret"]


def test_every_value_is_documented() -> None:
    rows = table(page(PAGE), "value", "meaning")
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert sorted(name for row in rows for name in names(row["value"])) == sorted(defaults)


def test_every_values_file_is_documented() -> None:
    assert sorted(re.findall(r"\[`values/([-\w]+)\.yaml`\]", page(PAGE))) == sorted(VALUES)


def test_the_errors_of_the_page_are_those_of_the_chart(chart: Chart) -> None:
    (text,) = blocks(page(PAGE), "text")
    wrong: list[dict[str, Any]] = [{"settings": {"max_bach": 5}}, {"state": {"size": "8Gi"}}]
    for line, values in zip(text.splitlines(), wrong, strict=True):
        with pytest.raises(ChartError) as refused:
            chart.render(values)
        assert line in str(refused.value)


def test_the_rule_of_the_adapter_finds_the_metric_of_the_autoscaler(chart: Chart) -> None:
    (text,) = blocks(page(PAGE), "yaml")
    (rule,) = yaml.safe_load(text)["rules"]
    objects = chart.render(read_values("high-availability"))
    (autoscaler,) = [body for body in objects if body["kind"] == "HorizontalPodAutoscaler"]
    metric = autoscaler["spec"]["metrics"][1]["pods"]["metric"]["name"]
    assert rule["seriesQuery"].startswith(metric + "{")
    assert f"`{metric}`" in page("metrics.md")
