"""The page on parity lists exactly the causes that exist, and the keys of its JSON."""

from __future__ import annotations

import re

from skewless.validation.parity_report import GLOSS, Mismatch, ParityFault, ParityReport, ViewParity
from tests.docs.pages import names, page, section, table


def test_every_cause_is_documented_with_its_gloss_and_a_remedy() -> None:
    rows = table(page("parity.md"), "cause", "meaning", "what to do")
    assert {names(row["cause"])[0]: row["meaning"] for row in rows} == {c.value: text for c, text in GLOSS.items()}
    assert set(GLOSS) == set(ParityFault)
    assert all(row["what to do"] for row in rows)


def test_every_key_of_the_answer_is_documented() -> None:
    one = Mismatch(view="v", cause=ParityFault.VALUE, entity={"id": 1})
    view = ViewParity(view="v", hash="h", kind="batch", at_us=1, compared=1, unavailable=0, mismatches=[one], left=[])
    body = ParityReport(views=[view]).as_dict()
    told = set(re.findall(r"`(\w+)`", section(page("parity.md"), "Read the result")))
    keys = {*body, *body["views"]["v"], *body["examples"][0]} - {"view", "cause"}
    assert keys - told == set()
