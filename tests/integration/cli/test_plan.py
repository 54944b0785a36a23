"""``skewless plan`` is read like a pull request: only what changed, and what comes of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore
from feast.value_type import ValueType

from skewless.infra.definitions.plans.applied_plan import read_plan_number
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.command_line import Said, done, fingerprint, run
from tests.worlds.edits import edit
from tests.worlds.windowed import write_repo

MIN = '        Aggregation(column="arr_delay", function="min", time_window=2 * HOUR, name="min_delay_2h"),\n'
MEAN = '        Aggregation(column="arr_delay", function="mean", time_window=HOUR, name="mean_delay_1h"),\n'
FLEET = ', Field(name="fleet", dtype=Float64)'
_SUITES = "SUITES = {}\n"


@pytest.fixture(scope="module")
def lived_repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with events in its log, states online and a champion."""
    repo = write_repo(tmp_path_factory.mktemp("plan") / "p")
    (repo / "expectations.py").write_text(_SUITES)
    for words in (("apply",), ("import",), ("backfill",), ("materialize",), ("train",)):
        done(*words, "--repo", repo)
    yield repo
    PrivateServer(repo / ".skewless").stop()


@pytest.fixture
def repo(lived_repo: Path, tmp_path: Path) -> Path:
    """A copy of it, to be edited; without its online store."""
    return Path(shutil.copytree(lived_repo, tmp_path / "p", ignore=shutil.ignore_patterns("redis*")))


def shown(repo: Path) -> list[str]:
    """Return the lines of the changes, without the heading."""
    lines = run("plan", "--repo", repo).stdout.splitlines()
    assert lines[0].startswith("plan ")
    return list(takewhile(lambda line: line[0] in "+~- ", lines[1:]))


def version(repo: Path, view: str) -> str:
    """Return a version of a view of the plan in force, as people call it once it is no longer there."""
    body = done("status", "--repo", repo)
    (found,) = [item["hash"] for item in (*body["views"], *body["windows"]) if item["view"] == view]
    return f"{view}@{found[:8]}"


def served(body: dict[str, Any]) -> list[str]:
    (item,) = body["serves"]
    assert (item["model"], item["version"], item["role"]) == ("late", "000001", "champion")
    return list(item["views"])


def test_one_added_aggregation_is_one_line_and_what_comes_of_it_is_said(repo: Path) -> None:
    old = version(repo, "carrier_now")
    edit(repo, MEAN, MEAN + MIN)
    assert shown(repo) == [
        "~ windowed view carrier_now",
        "    + min_delay_2h: min of arr_delay over 2 h",
        "~ service air",
        "    + carrier_now__min_delay_2h",
    ]
    before = fingerprint(repo)
    body = done("plan", "--repo", repo)
    assert fingerprint(repo) == before
    (build,) = body["builds"]
    assert (build["view"], build["kind"], build["rows"]) == ("carrier_now", "states", 600)
    assert build["seconds"] > 0
    assert body["retires"] == body["breakages"] == body["notes"] == []
    (training,) = body["trains"]
    assert (training["model"], training["version"]) == ("late", "000001")
    assert training["reasons"] == ["windowed view carrier_now", "service air"]
    assert served(body) == ["facts", old]
    (detail,) = body["changes"][0]["details"]
    assert (detail["path"], detail["action"], detail["before"]) == (["aggregates", "min_delay_2h"], "add", None)
    assert detail["after"]["window_us"] == 7_200_000_000


def test_another_window_is_said_as_people_say_lengths(repo: Path) -> None:
    edit(repo, 'function="mean", time_window=HOUR', 'function="mean", time_window=3 * HOUR')
    assert shown(repo) == ["~ windowed view carrier_now", "    ~ mean_delay_1h: window 1 h -> 3 h"]


def test_a_renamed_feature_comes_and_goes(repo: Path) -> None:
    edit(repo, "mean_delay_1h", "mean_delay")
    assert shown(repo)[:3] == [
        "~ windowed view carrier_now",
        "    + mean_delay: mean of arr_delay over 1 h",
        "    - mean_delay_1h: mean of arr_delay over 1 h",
    ]


def test_a_dropped_feature_of_a_view(repo: Path) -> None:
    old = version(repo, "facts")
    table = pq.read_table(repo / "data/facts.parquet")
    pq.write_table(table.append_column("seats", table["fleet"]), repo / "data/facts.parquet")
    edit(repo, FLEET, FLEET.replace("fleet", "seats"))
    assert shown(repo) == [
        "~ view facts",
        "    + seats: float64",
        "    - fleet: float64",
        "~ service air",
        "    + facts__seats",
        "    - facts__fleet",
    ]
    body = done("plan", "--repo", repo)
    assert [(item["view"], item["kind"], item["rows"]) for item in body["builds"]] == [("facts", "rows", 3)]
    assert old in served(body)


def test_a_dropped_view_goes_offline_once_no_model_reads_it(repo: Path) -> None:
    old = version(repo, "facts")
    edit(repo, "features=[carrier_now, facts]", "features=[carrier_now]")
    definitions = (repo / "definitions.py").read_text()
    begin = definitions.index("facts = FeatureView")
    (repo / "definitions.py").write_text(definitions[:begin] + definitions[definitions.index("service =") :])
    body = done("plan", "--repo", repo)
    assert [(item["action"], item["kind"], item["name"]) for item in body["changes"]] == [
        ("remove", "view", "facts"),
        ("change", "service", "air"),
    ]
    assert body["retires"] == []
    assert old in served(body)
    shutil.rmtree(repo / ".skewless/packages")
    body = done("plan", "--repo", repo)
    assert [(item["view"], item["hours"]) for item in body["retires"]] == [("facts", 24.0)]
    assert "1 d after apply" in run("plan", "--repo", repo).stdout


def test_a_renamed_view_is_another_view(repo: Path) -> None:
    edit(repo, 'name="carrier_now"', 'name="carrier_here"')
    body = done("plan", "--repo", repo)
    assert [(item["action"], item["kind"], item["name"]) for item in body["changes"]] == [
        ("add", "windowed view", "carrier_here"),
        ("remove", "windowed view", "carrier_now"),
        ("change", "service", "air"),
    ]
    assert [item["view"] for item in body["builds"]] == ["carrier_here"]


def test_a_gate_needs_no_training_and_parameters_do(repo: Path) -> None:
    edit(repo, "floor=0.0", "floor=0.99", file="models.py")
    assert shown(repo) == ["~ model late", "    ~ gate.floor 0.0 -> 0.99"]
    assert done("plan", "--repo", repo)["trains"] == []
    edit(repo, '"num_leaves": 3', '"num_leaves": 63', file="models.py")
    assert shown(repo) == ["~ model late", "    ~ params.num_leaves 3 -> 63", "    ~ gate.floor 0.0 -> 0.99"]
    assert [item["reasons"] for item in done("plan", "--repo", repo)["trains"]] == [["params"]]


def test_another_project_name_breaks_what_is_served(repo: Path) -> None:
    edit(repo, "project: air", "project: sky", file="feature_store.yaml")
    body = done("plan", "--repo", repo)
    (breakage,) = body["breakages"]
    assert (breakage["model"], breakage["version"]) == ("late", "000001")
    assert shown(repo)[:2] == ["~ project sky", "    ~ project 'air' -> 'sky'"]


def test_check_exits_5_where_apply_would_change_something(repo: Path) -> None:
    assert run("plan", "--check", "--repo", repo).code == 0
    edit(repo, "floor=0.0", "floor=0.5", file="models.py")
    assert run("plan", "--repo", repo).code == 0
    assert run("plan", "--check", "--json", "--repo", repo).code == 5
    assert run("apply", "--repo", repo).code == 0
    assert run("plan", "--check", "--repo", repo).code == 0


def state(repo: Path) -> str:
    return str(done("status", "--repo", repo)["plan"]["state"])


def warned(said: Said) -> bool:
    assert said.code == 0, said
    return "definitions_changed" in said.stderr


def test_an_edit_of_expectations_warns_of_nothing_and_plan_says_that_it_counts(repo: Path) -> None:
    (repo / "expectations.py").write_text(_SUITES + "# edited\n")
    assert not warned(run("materialize", "--dry-run", "--repo", repo))
    assert state(repo) == "unchanged since apply"
    said = run("plan", "--check", "--repo", repo)
    assert said.code == 0
    assert "expectations.py was edited: its suites take effect at once, without `skewless apply`" in said.stdout


def test_an_edit_to_no_effect_is_shown_by_plan_and_forgotten_by_apply(repo: Path) -> None:
    edit(repo, "MODELS = [", "# a remark\nMODELS = [", file="models.py")
    assert warned(run("materialize", "--dry-run", "--repo", repo))
    assert state(repo) == "changed since apply"
    body = done("plan", "--repo", repo)
    assert body["changes"] == []
    assert body["notes"] == ["models.py was edited without changed definitions: `skewless apply` ends the warnings"]
    number = done("status", "--repo", repo)["plan"]["number"]
    assert done("apply", "--repo", repo)["changes"] == []
    assert not warned(run("materialize", "--dry-run", "--repo", repo))
    status = done("status", "--repo", repo)["plan"]
    assert (status["state"], status["number"]) == ("unchanged since apply", number + 1)
    assert done("plan", "--repo", repo)["notes"] == []


def test_a_registry_that_somebody_else_has_written_is_a_change(repo: Path) -> None:
    FeatureStore(repo_path=str(repo)).apply([Entity(name="ship", value_type=ValueType.STRING)])
    assert state(repo) == "registry changed since apply"
    assert shown(repo) == ["~ registry .skewless/registry.db"]
    assert run("plan", "--check", "--repo", repo).code == 5


# In make test, by `apply`: both compile alike.
@pytest.mark.parametrize("verb", [pytest.param("plan", marks=pytest.mark.soak), "apply"])
def test_a_column_of_another_type_than_the_log_has_is_refused(verb: str, repo: Path) -> None:
    table = pq.read_table(repo / "data/landings.parquet")
    whole = table.set_column(1, "arr_delay", table["arr_delay"].cast("int64", safe=False))
    pq.write_table(whole, repo / "data/landings.parquet")
    edit(repo, "arr_delay float64", "arr_delay int64")
    number = read_plan_number(ProjectState(repo / ".skewless"))
    said = run(verb, "--repo", repo, "--json")
    assert said.code == 4
    assert said.body["error"]["thing"] == "event source 'landings' column 'arr_delay'"
    assert said.body["error"]["problem"] == "is declared as int64, but is float64 in the log"
    assert said.body["error"]["fix"] == "use a new name for the column with the new type"
    assert read_plan_number(ProjectState(repo / ".skewless")) == number


def test_an_altered_package_stops_no_plan(repo: Path) -> None:
    place = repo / ".skewless/packages/late/000001/plan.json"
    place.write_text(place.read_text().replace("mean_delay_1h", "other"))
    body = done("plan", "--repo", repo)
    (note,) = body["notes"]
    assert note.startswith("package late 000001 cannot be read")
    assert [item["reasons"] for item in body["trains"]] == [["the package of its champion cannot be read"]]


def test_a_machine_that_never_applied_works_with_the_applied_plan(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(shutil.copytree(repo, tmp_path / "there", ignore=shutil.ignore_patterns(".skewless")))
    for name in ("packages", "log"):  # files that the machines share
        shutil.copytree(repo / ".skewless" / name, there / ".skewless" / name)
    plan = done("status", "--repo", repo)["plan"]
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", f"sqlite:///{repo}/.skewless/skewless.db")
    try:
        assert done("status", "--repo", there)["plan"] == plan
        assert run("plan", "--check", "--repo", there).code == 0
        for words in (("materialize",), ("backfill",), ("housekeeping",)):
            done(*words, "--repo", there)
        done("predict", "late", "--row", '{"carrier": "AA"}', "--repo", there)
        assert done("apply", "--repo", there)["changes"] == []
    finally:
        PrivateServer(there / ".skewless").stop()
    monkeypatch.delenv("SKEWLESS_DATABASE_URL")
    assert state(repo) == "unchanged since apply"
    done("materialize", "--dry-run", "--repo", repo)
