"""``skewless predict``: rows on the command line, and files."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.nightly.integration.errors.case import Arrange, Case, ErrorReply, both, place, verb, written
from tests.nightly.integration.errors.requests import LOGGED
from tests.nightly.integration.errors.scene import GOOD, Scene

_IN, _OUT = "{elsewhere}/in", "{elsewhere}/out"
_HEAD = ",".join(GOOD)
_LINE = "9007199254740993,shop-07,{amount},2025-01-31T12:00:00Z,1,2,0.5,true,m,p"


def _csv(*amounts: str) -> Arrange:
    return written("elsewhere/in.csv", "\n".join([_HEAD, *(_LINE.format(amount=amount) for amount in amounts), ""]))


def _parquet(**changes: pa.Array) -> Arrange:
    """Return the writing of one good row, some of its columns changed."""
    columns: dict[str, Any] = {
        **{name: [value] for name, value in GOOD.items()},
        "visits": pa.array([2], pa.int64()),
        "paid_at": pa.array([1_700_000_000_000_000], pa.timestamp("us", tz="UTC")),
    }

    def arrange(scene: Scene) -> None:
        pq.write_table(pa.table({**columns, **changes}), place(scene, "elsewhere/in.parquet"))

    return arrange


def truncated(file: str) -> Arrange:
    """Return the loss of a file's second half."""

    def arrange(scene: Scene) -> None:
        data = place(scene, file).read_bytes()
        place(scene, file).write_bytes(data[: len(data) // 2])

    return arrange


def _file(name: str, arrange: Arrange, code: int, ending: str = ".csv", **parts: Any) -> Case:  # noqa: ANN401
    words = ("predict", "fraud", "--in", _IN + ending, "--out", _OUT + ".csv")
    return Case(name=f"predict file: {name}", ask=verb(*words), code=code, arrange=arrange, **parts)


def _row(name: str, text: str, **parts: Any) -> Case:  # noqa: ANN401 - fields of Case
    ask = verb("predict", parts.pop("model", "fraud"), "--row", text)
    return Case(name=f"predict row: {name}", ask=ask, code=6, **parts)


def _scores_null(scene: Scene, said: ErrorReply) -> None:
    """NaN in a file is null: the score is that of a row which says null."""
    assert said.body["rows"] == 1
    lines = (scene.elsewhere / "out.csv").read_text().splitlines()
    score = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))['"score"']
    row = {**GOOD, "visits": 2, "paid_at": 1_700_000_000_000_000, "amount": None}
    expected = verb("predict", "fraud", "--row", json.dumps(row))(scene)
    assert float(score) == expected.body["predictions"][0]["score"]


_NAN = pa.array([float("nan")], pa.float64())
_GONE = pa.table({"card_id": [1]})

CASES: tuple[Case, ...] = (
    _row("bare NaN", json.dumps({**GOOD, "amount": float("nan")}), thing="option --row", says=("NaN",), fix="null"),
    _row("not JSON", "{card_id: 7}", thing="option --row", says=("is not JSON",), fix="quote it"),
    _row("wrong type", json.dumps({**GOOD, "card_id": 1.5}), thing="row 0 key 'card_id'", says=("1.5",), fix="integer"),
    _row("unknown field", json.dumps({**GOOD, "x": 1}), thing="row 0", says=("unknown field", "'x'"), fix="send only"),
    _row("empty batch", "[]", thing="field 'rows'", says=("is empty",), fix="at least one row"),
    _row("unknown model", json.dumps(GOOD), model="nosuch", thing="argument MODEL", says=("'nosuch'",), fix="strict"),
    _row(
        "misspelt model", json.dumps(GOOD), model="frud", thing="argument MODEL", says=("'frud'",),
        fix="write 'fraud', or use one of: fraud, strict",
    ),
    _row("a text", '"seven"', thing="row 0", says=("is not an object", "seven"), fix="send {"),
    _file("missing", lambda _: None, 4, thing="in.csv", says=("cannot be read",), fix="Parquet or CSV"),
    _file("NaN", _parquet(amount=_NAN), 0, ".parquet", after=_scores_null, added=(*LOGGED, "elsewhere/out.csv")),
    _file("infinity", _csv("1.5", "inf"), 6, thing="row 1 field 'amount'", says=("float64", "inf"), fix="null"),
    _file("text for a number", _csv("1.5", "abc"), 6, thing="row 1 field 'amount'", says=("'abc'",), fix="number"),
    _file("ragged CSV", _csv("1.5", "1,2"), 4, thing="in.csv", says=("cannot be read",), fix="Parquet or CSV"),
    _file("CSV without a column", written("elsewhere/in.csv", "card_id\n7\n"), 4, says=("'shop_id'",), fix="card_id"),
    _file("empty CSV", written("elsewhere/in.csv", ""), 4, thing="in.csv", says=("cannot be read",), fix="CSV"),
    _file("no rows", written("elsewhere/in.csv", f"{_HEAD}\n"), 4, thing="in.csv", says=("no row",), fix="at least"),
    _file("garbage CSV", written("elsewhere/in.csv", b"\xff\xfe\x00"), 4, thing="file", fix=""),
    _file(
        "garbage Parquet", written("elsewhere/in.parquet", b"PAR1nothingPAR1"), 4, ".parquet",
        thing="in.parquet", says=("cannot be read",), fix="Parquet or CSV",
    ),
    _file(
        "truncated Parquet", both(_parquet(), truncated("elsewhere/in.parquet")), 4, ".parquet",
        thing="in.parquet", says=("cannot be read",), fix="Parquet or CSV",
    ),
    _file(
        "a column with a name of the result", _parquet(score=pa.array([1.0])), 4, ".parquet",
        says=("has a column with a name", "'score'"), fix="rename",
    ),
    Case(
        name="predict file: neither Parquet nor CSV",
        ask=verb("predict", "fraud", "--in", "{elsewhere}/in.xls", "--out", "{elsewhere}/out.csv"),
        code=6, thing="option --in", says=("in.xls",), fix="end it in .parquet or .csv",
    ),
    Case(
        name="predict file: no folder for the answer",
        ask=verb("predict", "fraud", "--in", "{elsewhere}/in.csv", "--out", "{elsewhere}/no/out.csv"),
        code=10, arrange=_csv("1.5"), thing="folder ", says=("elsewhere/no", "does not exist"), fix="create it",
    ),
    Case(
        name="predict: no input",
        ask=verb("predict", "fraud"),
        code=6, thing="options of predict", says=("no input",), fix="--row JSON",
    ),
)  # fmt: skip
