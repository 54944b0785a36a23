"""The CI of a team's project: its jobs run here as a runner runs them, on PostgreSQL, S3 and Redis of two environments.

GitHub and GitLab themselves are not here: their actions are replaced by what they do, and ``gh`` by a program that
writes down what it was told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_commands import BY_NAME
from tests.servers.node import Node
from tests.servers.object_storage import CREDENTIALS, ObjectStorageServer
from tests.worlds.command_line import done

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra" / "deploy" / "ci"
GITHUB = yaml.safe_load((FOLDER / "github.yml").read_text())
GITLAB = yaml.safe_load((FOLDER / "gitlab.yml").read_text())
_EXPRESSION = re.compile(r"\$\{\{ ([a-z_.A-Z]+) \}\}")
_INSTALL = "pip install -r requirements.txt"


def scripts() -> list[str]:
    """Return the scripts of both files."""
    steps = [step["run"] for job in GITHUB["jobs"].values() for step in job["steps"] if "run" in step]
    return [*steps, *(line for name, job in GITLAB.items() if "script" in job for line in job["script"])]


def test_every_command_of_both_files_exists() -> None:
    found = [line for script in scripts() for line in re.findall(r"\bskewless ([a-z]+)([^|>\n)]*)", script)]
    assert {name for name, _ in found} == {"plan", "apply", "validate", "bundle", "adopt", "approve", "promote", "card"}
    for name, words in found:
        known = {option for parameter in BY_NAME[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= known, (name, words)


def test_no_text_of_a_person_is_part_of_a_script() -> None:
    """An input is a variable: as a part of the script, it would run as code."""
    for job in GITHUB["jobs"].values():
        assert not any(_EXPRESSION.search(step.get("run", "")) for step in job["steps"])
        assert not any(word in json.dumps(job.get("env", {})) for word in ("secrets.",))
    assert GITHUB["permissions"] == {"contents": "read"}


@dataclass
class Runner:
    """Runs jobs of the file for GitHub in a folder.

    Args:
        environments: variables of each environment, by the names of its secrets and variables.
    """

    project: Path
    folder: Path
    environments: Mapping[str, dict[str, str]]
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""

    def run(self, name: str, inputs: Mapping[str, str] | None = None) -> None:
        """Run a job in a new checkout; anything but success fails the test."""
        job, checkout = GITHUB["jobs"][name], self.folder / f"{name}-{uuid.uuid4().hex[:6]}"
        shutil.copytree(self.project, checkout, ignore=shutil.ignore_patterns(".skewless"))
        known = {f"inputs.{key}": value for key, value in (inputs or {}).items()} | self.outputs
        known |= {"github.token": "t", "github.event.pull_request.number": "7"}
        known |= self.environments[job["environment"]]
        exported: dict[str, str] = {}
        for step in job["steps"]:
            if "uses" in step:
                self._act(step, checkout)
            elif step["run"] != _INSTALL:
                self._execute(step, checkout, known, exported)
                exported |= self._written(checkout / ".env")
        for output in job.get("outputs", {}):
            self.outputs[f"needs.{name}.outputs.{output}"] = self._written(checkout / ".output")[output]

    def _execute(
        self, step: Mapping[str, Any], checkout: Path, known: Mapping[str, str], exported: Mapping[str, str]
    ) -> None:
        given = {**GITHUB["env"], **step.get("env", {})}
        own = {key: _EXPRESSION.sub(lambda found: known.get(found[1], ""), value) for key, value in given.items()}
        tools = f"{self.folder / 'tools'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        files = {f"GITHUB_{name}": f"{checkout}/.{name.lower()}" for name in ("OUTPUT", "ENV", "STEP_SUMMARY")}
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SKEWLESS_", "GITHUB_"))}
        environment = clean | {
            "PATH": tools,
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTOR": "ada",
            "RUNNER_TEMP": str(checkout),
        }
        environment |= {**CREDENTIALS, **files, **own, **exported}
        words = ["bash", "--noprofile", "--norc", "-e", "-c", step["run"]]
        ended = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (step["run"], ended.stdout, ended.stderr)
        if (checkout / ".step_summary").exists():
            self.summary = (checkout / ".step_summary").read_text()

    def _act(self, step: Mapping[str, Any], checkout: Path) -> None:
        """Do what an action does: only those of artifacts do something here."""
        name, stored = step["uses"].partition("@")[0], self.folder / "artifacts"
        if name == "actions/upload-artifact":
            stored.mkdir()
            shutil.copy(checkout / step["with"]["path"], stored)
        elif name == "actions/download-artifact":
            shutil.copytree(stored, checkout, dirs_exist_ok=True)
        else:
            assert name in {"actions/checkout", "actions/setup-python"}

    def settings(self, name: str) -> dict[str, str]:
        """Return the addresses of an environment, as variables of the project."""
        values = self.environments[name].items()
        return {f"SKEWLESS_{key.partition('.')[2]}": value for key, value in values if key.endswith("_URL")}

    @staticmethod
    def _written(file: Path) -> dict[str, str]:
        lines = file.read_text().splitlines() if file.exists() else []
        return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def runner(
    tmp_path: Path, postgres_url: str, object_server: ObjectStorageServer, valkey: Node, monkeypatch: pytest.MonkeyPatch
) -> Runner:
    """A project of the template `churn`, and two environments without a plan."""
    (tmp_path / "tools").mkdir()
    gh = tmp_path / "tools" / "gh"
    gh.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/gh.txt\ncp "${{7}}" {tmp_path}/comment.md\n')
    gh.chmod(0o755)
    command = tmp_path / "tools" / "skewless"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m skewless.cli "$@"\n')
    command.chmod(0o755)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    done("init", tmp_path / "churn", "--template", "churn", "--repo", tmp_path)
    environments = {
        name: {
            "secrets.DATABASE_URL": f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=ci_{uuid.uuid4().hex}",
            "secrets.STORAGE_URL": object_server.address(uuid.uuid4().hex),
            "secrets.REDIS_URL": valkey.url[:-1] + str(number),
        }
        for number, name in enumerate(("staging", "production"), start=8)
    }
    return Runner(tmp_path / "churn", tmp_path, environments)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_change_goes_from_a_pull_request_to_production(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.run("check")
    comment = (runner.folder / "comment.md").read_text()
    assert "+ model churn" in comment
    assert "not applied" in comment
    assert (runner.folder / "gh.txt").read_text().split()[:3] == ["pr", "comment", "7"]
    runner.run("apply")
    runner.run("check")
    assert "no changes" in (runner.folder / "comment.md").read_text()

    # What the schedulers of the two environments do.
    keys, places = {}, {}
    for name, verbs in (("staging", ("materialize", "train")), ("production", ("apply", "materialize"))):
        for variable, value in runner.settings(name).items():
            monkeypatch.setenv(variable, value)
        places[name] = shutil.copytree(runner.project, runner.folder / name)
        for verb in verbs:
            done(verb, "--repo", places[name])
        keys[name] = done("sign", "--repo", places[name])["key"]

    asked = {"model": "churn", "reason": '"; touch hacked; $(touch hacked) | <b>'}
    runner.run("bundle", asked)
    assert runner.summary.startswith("# churn 000001")
    signing_key = (places["production"] / ".skewless" / "signing_key.pem").read_text()
    runner.environments["production"] |= {"secrets.SIGNING_KEY": signing_key}
    with pytest.raises(AssertionError, match="'trusted_keys': is empty"):
        runner.run("promote", asked)
    runner.environments["production"] |= {"vars.TRUSTED_KEYS": json.dumps(list(keys.values()))}
    runner.run("promote", asked)

    assert '| ada | "; touch hacked; $(touch hacked) \\| &lt;b> |' in runner.summary
    assert not list(runner.folder.rglob("hacked"))
    monkeypatch.setenv("SKEWLESS_TRUSTED_KEYS", json.dumps(list(keys.values())))
    card = done("card", "churn", "--repo", places["production"])
    assert (card["aliases"], card["origin"]["bundle"]) == (["champion"], runner.outputs["needs.bundle.outputs.digest"])
