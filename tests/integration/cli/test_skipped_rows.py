"""Rows that are left out of the online store, as `materialize` and `status` show them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.worlds.command_line import done, run

REASON = "key 'shop_id' is null"


def test_materialize_and_status_show_what_is_left_out_and_strict_refuses_it(applied: Path) -> None:
    path = applied / "data/shop_risk.parquet"
    rows = pq.read_table(path)
    place, first = rows.column_names.index("shop_id"), rows["shop_id"][0].as_py()
    keys = pc.if_else(pc.equal(rows["shop_id"], first), pa.scalar(None, pa.string()), rows["shop_id"])
    pq.write_table(rows.set_column(place, "shop_id", keys), path)
    (applied / "skewless.yaml").write_text("strict: true\n")
    said = run("materialize", "--no-check", "--repo", applied, "--json")
    assert said.code == 5
    assert (said.body["error"]["kind"], said.body["error"]["thing"]) == ("gate", "view 'shop_risk'")
    (applied / "skewless.yaml").unlink()
    shown = run("materialize", "--no-check", "--repo", applied)
    assert shown.code == 0
    assert "rows skipped by the online store" in shown.stdout
    assert REASON in shown.stdout
    (item,) = done("status", "--repo", applied)["left_out"]
    assert (item["view"], item["verb"], item["reason"]) == ("shop_risk", "materialize", REASON)
    assert item["rows"] == keys.null_count > 0
    text = run("status", "--repo", applied).stdout
    assert REASON in text
