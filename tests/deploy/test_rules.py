"""Each alert fires on its fault, is quiet before it, and ends after it, as Prometheus' own tool sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.alert_cases import CASES, cases_of
from tests.docs.pages import page

PROMETHEUS = Path(__file__).parents[2] / "infra" / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"


def rules() -> list[dict[str, Any]]:
    """Return all rules that are alerts."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def run_tool(*arguments: str, text: str | None = None) -> str:
    """Return what promtool says about files, or about a text; it must succeed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on this machine: `apt-get install prometheus` (Debian) brings it")
    said = subprocess.run([found, *arguments], input=text, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_every_alert_has_a_case() -> None:
    assert sorted(rule["alert"] for rule in rules()) == sorted(CASES)


def test_prometheus_takes_rules_and_configuration() -> None:
    assert "rules found" in run_tool("check", "rules", str(RULES))
    assert "is valid" in run_tool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_each_alert_fires_on_its_fault_and_ends_after_it(tmp_path: Path) -> None:
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": cases_of(list(CASES))}), encoding="utf-8")
    assert "SUCCESS" in run_tool("test", "rules", str(file))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_has_a_section_in_the_runbook(rule: dict[str, Any]) -> None:
    target, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = [heading.lower() for heading in re.findall(r"^## (\w+)$", page("runbooks.md"), re.MULTILINE)]
    assert target == "docs/runbooks.md"
    assert anchor in headings
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert re.search(rf"\b{rule['alert']}\b", page("runbooks.md"))
