"""What holds for every verb: help, JSON, exit codes, and dry runs that change nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skewless.commands.all_commands import COMMANDS, flatten, plugin_commands, sections_of
from skewless.contract.errors import SkewlessError
from skewless.contract.settings import Settings
from skewless.infra.definitions.plans.applied_plan import read_applied
from skewless.infra.platform import pages
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.command_line import done, fingerprint, run
from tests.worlds.edits import edit

ROOT = Path(__file__).parents[3]
INSTALLED = [*COMMANDS, *flatten(plugin_commands([]))]
NAMES = [command.name for command in COMMANDS]
SECTIONS = sections_of(INSTALLED)
SECTIONS_OF = {name: title for title, names in sections_of().items() for name in names}
NEEDED = {
    "keys add": ["web"],
    "keys revoke": ["web"],
    "lists set": ["stolen", "stolen.txt", "--reason", "ok"],
    "backup": ["/nowhere/copy"],
    "restore": ["/nowhere/copy"],
    "bundle": ["/nowhere/bundle"],
    "adopt": ["fraud.tar.gz", "fraud", "--digest", "0"],
    "approve": ["fraud", "--by", "ada", "--reason", "ok"],
    "promote": ["fraud"],
    "versions": ["fraud"],
    "rollback": ["fraud"],
    "runs show": ["validate@20260115T060000Z"],
    "runs start": ["validate"],
    "runs retry": ["validate@20260115T060000Z"],
    "runs cancel": ["validate@20260115T060000Z"],
    "triggers": ["fraud"],
    "predict": ["--row", "{}"],
    "get": ["v"],
    "why": ["19ad1f7c2e0-8c81a2f7-1f"],
    "feedback": ["outcomes.csv"],
    "dataset": ["--entities", "asked.csv", "--service", "s", "--out", "rows"],
}
HEAVY = {
    "duckdb",
    "fastapi",
    "feast",
    "great_expectations",
    "numpy",
    "pandas",
    "pyarrow",
    "online store",
    "rich",
}  # typer itself needs pydantic to show options
PROBE = """
import json, sys
from skewless.cli import main
try:
    main()
except SystemExit:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def test_the_help_lists_each_command_once_in_its_section_on_one_line() -> None:
    assert [*SECTIONS_OF] == [*dict.fromkeys(name.partition(" ")[0] for name in NAMES)]
    sections = re.split(r"\n(\w+):\n", run("--help").stdout)
    shown = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert [*shown][-len(SECTIONS) :] == [*SECTIONS]
    for title, names in SECTIONS.items():
        lines = shown[title].partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in lines] == [*names]
        assert max(map(len, lines)) <= 80


def test_each_help_begins_with_an_imperative_and_ends_a_sentence() -> None:
    for command in COMMANDS:
        assert command.short[0].isupper(), command.name
        assert command.short.endswith("."), command.name
        verb = command.short.split()[0].rstrip(",")
        assert not verb.endswith(("s", "ing")), command.name


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_an_example_and_the_common_options(name: str) -> None:
    said = run(*name.split(), "--help")
    assert said.code == 0
    assert f"Example:\n    $ skewless {name}" in said.stdout
    assert "--repo DIR" in said.stdout
    assert "--json" in said.stdout


def test_the_help_of_serve_tells_every_setting_with_its_default_and_meaning() -> None:
    told = " ".join(run("serve", "--help").stdout.partition("Settings,")[2].split())
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else field.default
        assert f" {name} {field.description} [default: {default}]" in told


# In make test, `serve --help`, which shows all settings; test_command_imports.py has `--help`.
@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--help"],
        ["--version"],
        *(pytest.param(words, marks=pytest.mark.soak) for words in (["--help"], ["predict", "--help"])),
    ],
)
def test_help_loads_no_library_that_works_on_data(words: list[str]) -> None:
    command = [sys.executable, "-c", PROBE, *words]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("Usage:") or said.stdout == "0.1.0\n"
    assert set(json.loads(said.stderr)) & HEAVY == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"init", "doctor"}])
def test_a_folder_without_a_project_is_refused_alike(name: str, tmp_path: Path) -> None:
    said = run(*name.split(), *NEEDED.get(name, []), "--repo", tmp_path, "--json")
    assert said.code == 10
    assert said.body["error"]["kind"] == "place"
    assert said.body["error"]["thing"] == f"folder {tmp_path}"
    assert fingerprint(tmp_path) == {}
    spoken = run(*name.split(), *NEEDED.get(name, []), "--repo", tmp_path)
    assert (spoken.code, spoken.stdout) == (10, "")
    assert spoken.stderr == f"error: {said.body['error']['message']}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["validate"],
        ["train"],
        ["dataset", *NEEDED["dataset"]],
        ["materialize"],
        ["serve"],
        ["predict", "--row", "{}"],
        ["replay", "fraud"],
        ["scheduler"],
    ],
)
def test_without_an_applied_plan_the_exit_code_is_3(words: list[str], new: Path) -> None:
    said = run(*words, "--repo", new, "--json")
    assert said.code == 3
    assert "skewless apply" in said.body["error"]["fix"]


@pytest.mark.parametrize("words", [["plan"], ["apply", "--dry-run"], ["status"], ["doctor"]])
@pytest.mark.parametrize("how", ["--json", None])
def test_looking_at_a_new_project_changes_nothing(words: list[str], how: str | None, new: Path) -> None:
    before = fingerprint(new)
    said = run(*words, "--repo", new, *([how] if how else []))
    assert said.code == 0 or words == ["doctor"]
    assert said.stdout
    assert fingerprint(new) == before


@pytest.mark.parametrize("words", [["plan"], ["materialize", "--dry-run"], ["validate"], ["status"], ["replay"]])
def test_looking_at_an_applied_project_changes_nothing(words: list[str], applied: Path) -> None:
    before = fingerprint(applied)
    assert run(*words, "--repo", applied).code == 0
    assert fingerprint(applied) == before


def test_a_dry_run_says_what_the_run_then_does(new: Path) -> None:
    foreseen = done("apply", "--dry-run", "--repo", new)
    real = done("apply", "--repo", new)
    assert (foreseen.pop("applied"), real.pop("applied")) == (False, True)
    assert foreseen == real
    assert {change["name"] for change in real["changes"]} >= {"card_days", "shop_risk", "fraud"}
    pending = {view["view"]: view["accepted"] for view in done("materialize", "--dry-run", "--repo", new)["views"]}
    run_views = done("materialize", "--repo", new)["views"]
    assert {view["view"]: view["accepted"] for view in run_views} == pending == {"card_days": 6000, "shop_risk": 2400}
    assert {view["accepted"] for view in done("materialize", "--dry-run", "--repo", new)["views"]} == {0}


def test_no_error_shows_a_traceback_or_a_password(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_REDIS_URL", "redis://ann:hush@127.0.0.1:1/0")
    for words in (["materialize"], ["materialize", "--json"], ["status", "--json"], ["doctor"], ["doctor", "--json"]):
        said = run(*words, "--repo", applied)
        assert said.code in {0, 1, 7}
        assert "hush" not in said.stdout + said.stderr
        assert "Traceback" not in said.stderr
    assert run("materialize", "--repo", applied).code == 7


def test_a_definition_error_leaves_the_plan_in_force(applied: Path) -> None:
    state = ProjectState(applied / ".skewless")
    plan = read_applied(state)
    edit(applied, 'name="refund_share"', 'name="gone"')
    said = run("apply", "--repo", applied, "--json")
    assert said.code == 4
    assert said.body["error"]["value"] == "gone"
    assert read_applied(state) == plan != None  # noqa: E711 - a plan


def test_the_exit_codes_are_those_of_the_error_tree() -> None:
    codes = [kind.exit_code for kind in SkewlessError.__subclasses__()]
    assert sorted(codes) == list(range(2, 2 + len(codes)))


def test_a_missing_package_is_one_sentence(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("validate", "--repo", applied).code == 0  # it loads Feast and Great Expectations, which need jinja2 too
    # As in a process that has loaded no template yet.
    monkeypatch.setattr(pages, "_load_template", pages._load_template.__wrapped__)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    said = run("validate", "--record", "--repo", applied)
    assert said.stderr.startswith("error: package 'jinja2': is not installed.")
    assert (said.code, said.stdout) == (10, "")
