"""The verdict of parity for programs and people."""

from __future__ import annotations

from skewless.validation.parity_report import Mismatch, ParityFault, ParityReport, ViewParity

HOPELESS = "set the correct online store and state folder, or fill an empty store (backfill, materialize)"
ONE = Mismatch(
    view="v", cause=ParityFault.VALUE, entity={"id": 7}, feature="n", online=3.0, log=2.0, positions={"p": 4}
)
OTHER = Mismatch(view="v", cause=ParityFault.AHEAD, entity={"id": 8}, detail="the log ends at 3", repairable=False)


def view(
    *mismatches: Mismatch, name: str = "v", unavailable: int = 0, left: list[Mismatch] | None = None
) -> ViewParity:
    return ViewParity(
        view=name,
        hash="h",
        kind="windowed",
        at_us=1,
        compared=1_000,
        unavailable=unavailable,
        mismatches=list(mismatches),
        left=left,
    )


def test_nothing_found() -> None:
    report = ParityReport(views=[view(), view(name="w")])
    assert report.ok
    assert report.lines() == [
        "v: 1,000 entities compared, all equal, bit for bit",
        "w: 1,000 entities compared, all equal, bit for bit",
    ]
    assert report.as_dict() | {"compared": 2_000, "mismatches": 0, "examples": []} == report.as_dict()
    assert "repaired" not in report.as_dict()


def test_mismatches_are_shown_with_what_to_do() -> None:
    report = ParityReport(views=[view(ONE, OTHER)])
    assert not report.ok
    assert report.lines() == [
        "v: 1,000 entities compared, 2 MISMATCHES (1 value, 1 ahead)",
        "  v id=7: value: n is 3.0 online, 2.0 in the log; applied: p at 4",
        "  v id=8: ahead: the log ends at 3",
        "  value: a feature has other bits than the log gives for the same positions",
        "  ahead: it has positions that the log does not have: another log filled it",
        "  fix: `skewless parity v --repair` repairs these values from the log",
        f"  fix for v: a repair cannot help; {HOPELESS}",
    ]


def test_at_most_three_examples_of_a_cause_are_kept() -> None:
    report = ParityReport(views=[view(*[ONE] * 9, OTHER)])
    body = report.as_dict()
    assert [item["cause"] for item in body["examples"]] == ["value"] * 3 + ["ahead"]
    assert body["by_cause"] == {"value": 9, "ahead": 1}


def test_a_repair_is_told_and_what_is_left_decides() -> None:
    mended = ParityReport(views=[view(ONE, left=[]), view(name="w", left=[])])
    assert mended.ok
    assert mended.lines() == [
        "v: 1,000 entities compared, 1 MISMATCH (1 value); 1 repaired, 0 left",
        "w: 1,000 entities compared, all equal, bit for bit",
    ]
    body = ParityReport(views=[view(ONE, OTHER, left=[OTHER])]).as_dict()
    assert (body["mismatches"], body["repaired"], body["left"]) == (2, 1, 1)
    assert view(ONE, OTHER, left=[OTHER]).verdict().by_cause == {"ahead": 1}


def test_what_could_not_be_read_is_no_mismatch() -> None:
    report = ParityReport(views=[view(unavailable=5)])
    assert report.ok
    assert report.lines()[0] == "v: 1,000 entities compared, 5 UNAVAILABLE, all equal, bit for bit"
    assert report.lines()[1].startswith("  v is unavailable: ")
    assert ParityReport(views=[]).lines() == ["the plan has no views"]
