"""Gates that say no: what they protect stays as it was."""

from __future__ import annotations

import pyarrow.parquet as pq

from tests.nightly.integration.errors.case import LEDGER, ROUND, Arrange, Case, ErrorReply, applied, both, verb
from tests.nightly.integration.errors.changes import bad_labels, bad_shop_rows, never_known, new_card_rows, one_class
from tests.nightly.integration.errors.scene import Scene

_QUARANTINE = ".skewless/quarantine/shop_risk/*.parquet"
_RUN = (
    _QUARANTINE,
    ".skewless/log/batch/card_days-*/00000000000000006000-*.parquet",
    ".skewless/skewless.db/materializations/2",
    ".skewless/skewless.db/coverage/batch/card_days-*/2",
    ".skewless/skewless.db/segments/batch/card_days-*/6000",
)
_PACKAGE = (".skewless/packages/fraud/000002/*", ".skewless/skewless.db/records/decision/fraud/2")


def _quarantined(scene: Scene, _: ErrorReply) -> None:
    (path,) = (scene.state / "quarantine/shop_risk").glob("*.parquet")
    rows = pq.read_table(path)
    assert [share > 1 for share in rows["refund_share"].to_pylist()] == [True] * 3
    assert all("refund_share" in reason for reason in rows["__reject"].to_pylist())


def _others_went_on(scene: Scene, said: ErrorReply) -> None:
    _quarantined(scene, said)
    (path,) = (scene.state / "log/batch").glob("card_days-*/00000000000000006000-*.parquet")
    assert pq.read_table(path).num_rows == 1
    rows = scene.stage.store.rows()
    changed = {key for key in rows if rows[key] != scene.stage.rows.get(key)}
    assert rows.keys() == scene.stage.rows.keys()
    assert sorted(key.rpartition(b":")[2] for key in changed) == [b"applied", b"{card_id|9007199254740993}"]


def _champion_stays(scene: Scene, _: ErrorReply) -> None:
    assert scene.packages.aliases.get("fraud", "champion") == "000001"


def _gate(old: str, new: str) -> Arrange:
    return applied("models.py", old, new)


CASES: tuple[Case, ...] = (
    Case(
        name="validate: a suite fails", ask=verb("validate"), code=5, arrange=bad_shop_rows,
        thing="batch 'shop_risk'", says=("refund_share", "3 unexpected", "7.5"), fix="expectations.py",
    ),
    Case(
        name="materialize: a suite fails", ask=verb("materialize"), code=5, arrange=bad_shop_rows,
        thing="batch 'shop_risk' of 3 rows", says=("refund_share", "7.5"), fix="expectations.py",
        added=(_QUARANTINE,), after=_quarantined,
    ),
    Case(
        name="materialize: a suite fails, other views go on", ask=verb("materialize"), code=5,
        arrange=both(bad_shop_rows, new_card_rows), thing="batch 'shop_risk' of 3 rows", says=("7.5",),
        fix="expectations.py", added=_RUN, after=_others_went_on, writes_rows=True,
        changed=(
            ".skewless/skewless.db/documents/read_progress/card_days-*",
            ".skewless/skewless.db/log_partitions/batch/card_days-*",
            ".skewless/skewless.db/documents/daily_counts/batch/*",
        ),
    ),
    Case(  # in make test, test_scheduler.py has such a round
        name="scheduler: a suite fails", soak=True, ask=verb(*ROUND), code=5,
        arrange=both(bad_shop_rows, bad_labels), thing="batch 'shop_risk'", says=("refund_share",),
        fix="expectations.py", added=(_QUARANTINE, LEDGER, ".skewless/data_docs/*.html"),
    ),
    Case(
        name="train: the label suite fails", ask=verb("train", "fraud"), code=5, arrange=bad_labels,
        thing="batch 'labels:fraud'", says=("fraud", "unexpected", "2"), fix="expectations.py", after=_champion_stays,
    ),
    Case(
        name="train: labels of one class", ask=verb("train", "fraud"), code=4, arrange=one_class,
        thing="labels of model 'fraud'", says=("not both 0 and 1", "[0.0]"), fix="label", after=_champion_stays,
    ),
    Case(
        name="train: no usable label row", ask=verb("train", "fraud"), code=4, arrange=never_known,
        thing="label table of model 'fraud'", says=("no usable row", "not_yet_known"), fix="add labels",
    ),
    Case(
        name="train: the split leaves nothing", ask=verb("train", "fraud"), code=4,
        arrange=_gate("test=timedelta(days=7)", "test=timedelta(days=900)"),
        thing="label table of model 'fraud'", says=("has no row in the train period",), fix="shorten the split",
    ),
    Case(
        name="train: promotion refused", ask=verb("train", "fraud"), code=5, arrange=_gate("floor=0.6", "floor=0.999"),
        thing="model 'fraud' 000002", says=("not promoted", "misses the floor 0.9990"), fix="the champion stays",
        added=_PACKAGE, after=_champion_stays,
    ),
    Case(
        name="train: a gate on an unknown metric", ask=verb("train", "fraud"), code=2,
        arrange=_gate('metric="auc"', 'metric="acu"'),
        thing="model 'fraud' gate", says=("'acu'",), fix="use one of auc", after=_champion_stays,
    ),
    Case(
        name="train: an unknown parameter value", ask=verb("train", "fraud"), code=2,
        arrange=_gate('"num_leaves": 15', '"num_leaves": 0'),
        thing="model 'fraud'", says=("num_leaves",), fix="correct its params", after=_champion_stays,
    ),
)  # fmt: skip
