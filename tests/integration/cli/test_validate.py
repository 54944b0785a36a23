"""``skewless validate``: suggestions, Data Docs, and labels that are judged once."""

from __future__ import annotations

import json
from pathlib import Path

from skewless.contract.bounds import Bounds
from skewless.validation.suites import load_suites
from tests.worlds.command_line import done, run

FILE = "expectations.py"


def test_a_suggestion_is_shown_written_once_and_holds(applied: Path) -> None:
    (applied / FILE).unlink()
    shown = run("validate", "--repo", applied, "--suggest")
    assert (shown.code, (applied / FILE).exists()) == (0, False)
    written = run("validate", "--repo", applied, "--suggest", "--write", "--json")
    body = json.loads(written.stdout)
    assert (written.code, body["written"]) == (0, True)
    assert (applied / FILE).read_text() == body["source"]
    assert body["source"] in shown.stdout
    assert {name: len(suite) for name, suite in load_suites(applied).items()} == body["expectations"]
    assert body["expectations"].keys() == {"card_days", "shop_risk", "labels:fraud"}
    checked = run("validate", "--repo", applied, "--json")
    reports = json.loads(checked.stdout)["reports"]
    assert checked.code == 0
    assert {report["name"]: len(report["results"]) for report in reports} == body["expectations"]
    assert [result for report in reports for result in report["results"] if not result["success"]] == []


def test_a_file_of_yours_is_never_replaced(applied: Path) -> None:
    before = (applied / FILE).read_text()
    said = run("validate", "--repo", applied, "--suggest", "--write")
    assert said.code == 0
    assert (applied / FILE).read_text() == before
    lines = said.stdout.splitlines()
    assert lines[:2] == [f"--- {FILE}", f"+++ {FILE} (suggested)"]
    assert any(line.startswith("+") and "mean_amount_7d" in line for line in lines)


def test_writing_without_a_suggestion_is_refused(applied: Path) -> None:
    said = run("validate", "--repo", applied, "--write")
    assert said.code == 2
    assert "--suggest" in said.stderr


def test_data_docs_are_written_and_linked(applied: Path, tmp_path: Path) -> None:
    said = run("validate", "--repo", applied, "--docs", tmp_path / "docs", "--json")
    body = json.loads(said.stdout)
    assert (said.code, body["docs"]) == (0, str(tmp_path / "docs/index.html"))
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {
        "index.html",
        "card_days.html",
        "shop_risk.html",
        "labels%3Afraud.html",
    }
    assert body["docs"] in run("validate", "--repo", applied, "--docs", tmp_path / "docs").stdout.replace("\n", "")


def test_labels_that_trained_are_not_judged_again(unasked: Path) -> None:
    done("train", "fraud", "--repo", unasked)
    new, everything = (
        json.loads(run("validate", "fraud", "--repo", unasked, *more, "--json").stdout)["reports"][0]
        for more in ((), ("--all",))
    )
    assert new["since_us"] is not None
    assert everything["since_us"] is None
    assert new["n_rows"] < everything["n_rows"]


def test_a_trained_package_holds_the_bounds_of_the_suites(walked: Path) -> None:
    bounds = Bounds.from_dict(json.loads((walked / ".skewless/packages/fraud/000001/bounds.json").read_text()))
    assert {name: (bound.low, bound.high) for name, bound in bounds.features.items()} == {
        "card_days__payments_7d": (0.0, 10_000.0),
        "shop_risk__refund_share": (0.0, 1.0),
    }
    assert bounds.fields == {}


def test_a_recorded_validation_leaves_data_docs(applied: Path) -> None:
    index = applied / ".skewless/data_docs/index.html"
    assert not index.exists()
    assert done("validate", "--record", "--repo", applied)["docs"] == str(index.resolve())
    assert index.is_file()
    (labels,) = [one for one in done("validate", "--repo", applied)["reports"] if one["name"].startswith("labels")]
    assert (labels["since_us"], labels["n_rows"]) != (None, 0)
