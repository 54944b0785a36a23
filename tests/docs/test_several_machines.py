"""The page of several machines says of each setting, once, whether it must be equal."""

from __future__ import annotations

import re

from skewless.contract.settings import Settings
from tests.worlds.requirements import ROOT

PAGE = ROOT / "docs" / "several-machines.md"


def test_each_setting_is_in_one_row() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "`" in line]
    assert len(rows) == 4
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(Settings.model_fields)
    assert {"stream_partitions", "storage_url", "database_url"} <= set(re.findall(r"`(\w+)`", rows[0]))
