"""A model whose views are online not what the log says is not promoted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skewless.contract.spec import Gate
from skewless.infra.models.verdicts.last_verdicts import LastParity, save_last
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.training.promotion import CHAMPION, describe_mismatches, promote
from tests.unit.training.only_test_rows import RIGHT, make_spec, only_test_rows
from tests.worlds.packages import store_at
from tests.worlds.plans import make_plan, make_view

VIEW = make_view()
PLAN = make_plan(["v.x"], views=[VIEW])


def verdict(mismatches: int, *, view: str = "v", hash_: str = VIEW.hash) -> LastParity:
    return LastParity(view=view, hash=hash_, at_us=1, compared=9, mismatches=mismatches)


@pytest.mark.parametrize(
    ("kept", "promoted"),
    [
        ([], True),
        ([verdict(0)], True),
        ([verdict(2)], False),
        ([verdict(2, hash_="older")], True),
        ([verdict(2, view="other", hash_="another")], True),
        ([verdict(2), verdict(0)], True),  # the last one counts
    ],
)
def test_the_last_verdict_of_parity_is_a_gate(tmp_path: Path, kept: list[LastParity], *, promoted: bool) -> None:
    for each in kept:
        save_last(ProjectState(tmp_path), LastParity, [each])
    packages = tmp_path / "packages"
    (packages / "m/000001").mkdir(parents=True)
    trained: Any = SimpleNamespace(scores=RIGHT, package=SimpleNamespace(version="000001"))
    decision = promote(
        replace(only_test_rows(), plan=PLAN),
        make_spec(Gate()),
        trained,
        store_at(packages),
        7,
        state=ProjectState(tmp_path),
    )
    assert decision.promote is promoted
    assert store_at(packages).aliases.get("m", CHAMPION) == ("000001" if promoted else None)
    if not promoted:
        assert decision.reason == "parity found 2 mismatches in view 'v'; auc 1.0000, no champion to compare with"


def test_a_verdict_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    Documents(ProjectState(tmp_path).database, "parity_verdicts").put("project", {"views": [{"view": "v"}]})
    assert describe_mismatches(PLAN, ProjectState(tmp_path)) == ""
