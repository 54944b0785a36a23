"""The report says what the project knows, explains its terms, and stands alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import RequestError
from skewless.contract.feedback import Outcome
from skewless.contract.lifecycle import Guardrails
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.alerts.alerts import Alert, Alerts
from skewless.infra.outcomes.log import OutcomeWriter, outcome_spool
from skewless.infra.packages.package import open_package
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.model_history import change_of
from skewless.operations.report.blocks import Paragraph, Report, Section, TableBlock
from skewless.operations.report.report import TERMS, build, render
from skewless.operations.report.sections import evaluation
from tests.worlds.command_line import run
from tests.worlds.trained import MODEL, Sandbox, ask, copy_project, opened, opened_copy

PART = f"Model {MODEL}"
GUARDRAILS = [
    {"guardrail": "errors", "champion": 0.0, "challenger": 0.25, "least": 0.12345678, "limit": 0.01, "breached": True},
    {"guardrail": "latency", "champion": 0.002, "challenger": 0.0016817928, "least": 0.8409, "limit": 3.0}
    | {"breached": False},
    {"guardrail": "quality", "champion": None, "challenger": None, "least": None, "limit": 0.02, "breached": False},
]


class Page(HTMLParser):
    """What another reader finds in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def lived(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A project with a version on trial, predictions, outcomes and an alert; leave it as it is."""
    with opened_copy(trained, tmp_path_factory.mktemp("lived") / "p") as place:
        place.wait(60)
        _live(place)
        yield place


@pytest.fixture(scope="module")
def report(lived: Sandbox) -> Report:
    return build(lived.project)


def _live(place: Sandbox) -> None:
    place.project.train(MODEL)
    place.train()
    ids = list(place.predict(ask(60)).ids) + list(place.predict(ask(60), model=place.load("000002")).ids)
    place.wait(10)
    said = [Outcome(prediction_id=name, label=float(i % 3 == 0), known_at=place.now_us()) for i, name in enumerate(ids)]
    OutcomeWriter(outcome_spool(ProjectState(place.state))).append(said, received_at=place.now_us(), source="http")
    policy = TrafficPolicy(
        number=1,
        phase="canary",
        champion="000001",
        challenger="000002",
        share=0.1,
        since_us=place.now_us(),
        reason="better <on> the same rows",
        evidence={"requests": {"champion": 1204, "challenger": 126}, "guardrails": GUARDRAILS, "differences": None},
    )
    place.project.store.traffic.replace(MODEL, policy, expect=None)
    with Alerts(ProjectState(place.state)) as alerts:
        alerts.send(Alert(name="drift", severity="warning", subject=MODEL, message="it moved", at_us=place.now_us()))


def sections(report: Report, part: str = PART) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = report.as_dict()["parts"][part]
    return found


def test_a_version_has_its_share_and_its_quality(report: Report) -> None:
    (table,) = sections(report)["Versions"]
    rows = {row["version"]: row for row in table["rows"]}
    assert list(rows) == ["000003", "000002", "000001"]
    assert [rows[name]["role"] for name in rows] == ["", "challenger", "champion"]
    assert [rows[name]["traffic share"] for name in rows] == ["0 %", "10 %", "90 %"]
    assert (rows["000002"]["predictions"], rows["000002"]["labelled"]) == ("60", "100 %")
    assert " to " in rows["000002"]["95 % interval"]
    assert rows["000003"]["live metric"] == "-"


def test_decisions_have_cause_and_evidence_newest_first(report: Report) -> None:
    (table,) = sections(report)["Decisions"]
    first = table["rows"][0]
    assert (first["change"], first["to"]) == ("traffic", "000001, 000002 for 10% (canary)")
    assert (first["cause"], first["evidence"]["summary"]) == (
        "better <on> the same rows",
        "1 BREACHED, 1 held, 1 not decided yet",
    )
    assert {"passed", "alias champion"} <= {row["change"] for row in table["rows"]}
    times = [row["time"] for row in table["rows"]]
    assert times == sorted(times, reverse=True)


def test_the_evidence_of_a_policy_is_a_line_per_guardrail_in_its_own_unit(report: Report) -> None:
    (table,) = sections(report)["Decisions"]
    assert [list(row.values()) for row in table["rows"][0]["evidence"]["rows"]] == [
        ["errors", "0 %", "25 %", "12.35 %", "1 %", "BREACHED"],
        ["latency", "2 ms", "1.682 ms", "0.8409 times", "3 times", "held"],
        ["quality", "-", "-", "-", "0.02", "not decided yet"],
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_rollout_that_ended_is_one_decision(trained: Path, tmp_path: Path) -> None:
    with opened(copy_project(trained, tmp_path / "p")) as place:
        place.project.train(MODEL)
        store, now = place.project.store, place.now_us()
        trial = TrafficPolicy(number=1, phase="canary", champion="000002", challenger="000001", share=0.1, since_us=now)
        store.traffic.replace(MODEL, trial, expect=None)
        store.aliases.move(MODEL, "champion", expect="000002", to="000001", reason="won", now_us=now + 5)
        alone = TrafficPolicy(number=2, phase="champion", champion="000001", since_us=now + 6, reason="won")
        store.traffic.replace(MODEL, alone, expect=1)
        (table,) = sections(build(place.project, [MODEL]))["Decisions"]
    told = [(row["change"], row["to"]) for row in table["rows"]]
    assert told[:2] == [("promoted", "000001 for all"), ("traffic", "000002, 000001 for 10% (canary)")]
    assert [to for change, to in told if change == "alias champion"] == ["000002", "000001"]


def test_nothing_raw_is_shown(report: Report) -> None:
    cells = [line for line in Page(render(report)).words if line.strip()]
    assert "requests challenger 126, requests champion 1,204" in cells
    assert not [line for line in cells if "None" in line or "{'" in line or "False" in line]


def test_what_is_there_is_plotted(report: Report) -> None:
    found = sections(report)
    titles = [block["title"] for blocks in found.values() for block in blocks if block["kind"] == "plot"]
    assert {"Traffic share and quality by version", "Importance over time", "ROC curve", "Calibration"} <= set(titles)


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_there_is_said(place: Sandbox) -> None:
    report = build(place.project)
    missing = {
        name: block["text"]
        for part in (PART, "Project")
        for name, blocks in sections(report, part).items()
        for block in blocks
        if block.get("tone") == "missing"
    }
    assert {"Traffic and quality over time", "Drift", "Feature importance", "Runs"} <= missing.keys()
    assert "skewless drift" in missing["Drift"]


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_champion_keeps_nothing_else_away(place: Sandbox) -> None:
    (place.state / "packages" / MODEL / "000001" / "metrics.json").write_text("{}")
    found = sections(build(place.project))
    (note,) = [block for block in found["Evaluation"] if block["kind"] == "note"]
    assert "altered file" in note["text"]
    assert found["Versions"][0]["kind"] == "table"


@pytest.mark.usefixtures("undrawn")
def test_constraints_are_in_the_evaluation_and_on_the_card(place: Sandbox) -> None:
    package = open_package(place.project.store, MODEL, "000001")
    card = place.project.card(MODEL)
    assert "Constraints" not in card.text
    assert [block.title for block in evaluation(package) if isinstance(block, TableBlock)] == [""]
    about = {**package.about, "constraints": {"monotone": {"a|b": -1}, "interactions": [["x", "y"], ["z"]]}}
    assert (
        "| a\\|b | may only lower the margin |\n| x, y | interact only with each other |\n"
        in replace(card, about=about).text
    )
    _, table = [block for block in evaluation(replace(package, about=about)) if isinstance(block, TableBlock)]
    assert table.rows[0] == ("a|b", "may only lower the margin")
    assert set(table.columns) <= TERMS.keys() | {"feature"}


def test_every_term_has_a_gloss(report: Report) -> None:
    used = report.used_terms()
    assert {"errors", "latency", "quality", "worse by at least", "passed", "log_loss"} <= used
    assert used <= report.glossary.keys() <= TERMS.keys()


def test_every_guardrail_has_a_gloss() -> None:
    names = {item.name for item in fields(Guardrails)} - {"least_requests"}
    assert names | {"latency_median"} <= TERMS.keys()


def test_the_page_stands_alone_and_escapes_what_it_was_told(
    lived: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{lived.state}/clock")
    target = tmp_path / "r.html"
    said = run("report", "--repo", lived.repo, "--out", target)
    assert said.code == 0, said
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "better <on> the same rows" in "".join(page.words)
    assert "better <on>" not in text
    assert page.tags.count("svg") >= 5
    assert all(f'<abbr title="{TERMS[name]}"' in text for name in ("version", "traffic share"))


def test_an_unknown_model_is_refused(place: Sandbox) -> None:
    assert run("report", "other", "--repo", place.repo).code == RequestError.exit_code


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", 'a"b', "& more"])
def test_notes_and_cells_are_text(text: str) -> None:
    table = TableBlock(title=text, columns=("version",), rows=[(text,)])
    report = Report(
        project="p",
        made_at="now",
        parts={text: [Section(title=text, blocks=[Paragraph(text=text), table])]},
        glossary={},
    )
    page = Page(render(report))
    assert "script" not in page.tags
    assert "".join(page.words).count(text) == 6


def test_a_policy_tells_what_it_changed() -> None:
    alone = TrafficPolicy(number=1, phase="champion", champion="000001")
    trial = replace(alone, phase="canary", challenger="000002", share=0.1)
    won = replace(alone, champion="000002")
    seen = [change_of(None, alone), change_of(alone, trial), change_of(trial, won), change_of(trial, alone)]
    assert [*seen, change_of(won, alone)] == ["traffic", "traffic", "promoted", "rolled back", "rolled back"]
