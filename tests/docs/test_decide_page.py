"""docs/decide.md: its policy is compiled and decides as the page says, and its commands are run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.policy import Policy
from skewless.contract.policy_runner import PolicyRunner, compile_policy
from skewless.contract.request import RowParser
from skewless.serving.http.predict_route import PredictedRow
from tests.docs.pages import blocks, names, page, section, table
from tests.worlds.command_line import done
from tests.worlds.plans import make_plan, make_view

PAGE = page("decide.md")
FUNCTION, MODEL = blocks(section(PAGE, "Declare a policy"), "python")


def declared() -> Policy:
    """Return the policy of the page's model, whose function is that of the page."""
    scope: dict[str, Any] = {"Policy": Policy, "ModelSpec": lambda _, policy: policy}
    exec(FUNCTION, scope)  # noqa: S102 - of the page
    text = "\n".join(line for line in MODEL.splitlines() if not line.startswith("from "))
    policy = eval(text.strip(), scope)  # noqa: S307 - of the page
    assert isinstance(policy, Policy)
    return policy


def test_the_policy_of_the_page_is_compiled_and_decides() -> None:
    view = make_view("card_days", keys={"card_id": DType.INT64}, features={"mean_amount_7d": DType.FLOAT64})
    plan = make_plan(["card_days.mean_amount_7d", "request.amount"], views=[view], request={"amount": DType.FLOAT64})
    policy = compile_policy("model 'fraud'", declared(), plan, "s", lambda *_: FUNCTION)
    runner = PolicyRunner("model 'fraud'", policy, plan.select_service("s"))
    runner.check()
    parser = RowParser(plan.select_service("s"))
    rows = parser.build_rows(
        parser.parse_rows([{"card_id": card, "amount": amount} for card, amount in ((1, 50.0), (1, 500.0), (7, 50.0))])
    )
    acts = runner.act(np.array([0.1, 0.1, 0.1]), np.zeros((3, 2)), rows, {"stolen_cards": (1, frozenset({"7"}))})
    assert list(acts.actions) == ["approve", "decline", "decline"]
    assert list(acts.reasons) == [(), ("score_over_limit",), ("stolen_card",)]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    (tmp_path / "stolen.txt").write_text("9007199254740993\n7\n")
    monkeypatch.chdir(tmp_path)
    (text,) = blocks(section(PAGE, "Lists"), "sh")
    written, listed = (done(*shlex.split(line)[1:]) for line in text.splitlines())
    assert (written["name"], written["number"], written["count"], written["reason"]) == (
        "stolen_cards",
        1,
        2,
        "ticket 77",
    )
    assert listed["lists"] == [{name: written[name] for name in ("name", "number", "count", "at", "reason")}]


def test_the_page_says_where_each_field_of_a_reply_appears() -> None:
    (row,) = [row for row in table(PAGE, "where", "how") if names(row["where"]) == ["/predict"]]
    assert set(names(row["how"])) == {"decision", "reasons", "explored"} <= set(PredictedRow.model_fields)
